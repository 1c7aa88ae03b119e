"""When requests are told slow and overdue, on a clock of the test's own."""

from types import SimpleNamespace
from typing import Any

import pytest

from prefork.figures import Running
from prefork.master import request_watch
from prefork.master.request_watch import RequestWatch, make_doorbell

SLOW_S, REQUEST_S = 5, 60


class Bench:
    """A watch over one pool whose running requests the test decides; the clock goes where the watch wants to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.told: list[tuple[str, str, float]] = []
        self.requests: dict[str, Running] = {}
        monkeypatch.setattr(request_watch, "monotonic_ns", lambda: int(self.now_s * 1e9))
        timeouts = SimpleNamespace(slow=SLOW_S, request=REQUEST_S, overrides=())
        self._scoreboard = SimpleNamespace(
            asleep=True, running=lambda: list(enumerate(self.requests.values()))
        )
        generation = SimpleNamespace(scoreboard=self._scoreboard, config=SimpleNamespace(timeouts=timeouts))
        log: Any = SimpleNamespace(warning=self._write, error=self._write)
        self._pools: Any = [
            SimpleNamespace(
                name="web",
                generations={1: generation},
                worker_of_cell=lambda generation, cell: cell,
                log_of=lambda worker: log,
                overdue=lambda worker, detail: None,
                ask_stack=lambda worker, then: then("the stack"),
            )
        ]
        self.watch = RequestWatch(log, make_doorbell())

    def begin(self, target: str) -> None:
        """Begin a request, and ring if the master sleeps, as a worker does."""
        start_ns = int(self.now_s * 1e9)
        self.requests[target] = Running(
            0, start_ns, start_ns + REQUEST_S * 10**9, start_ns + SLOW_S * 10**9, f"GET {target} HTTP/1.1"
        )
        if self._scoreboard.asleep:
            self.watch.next_look = self.now_s

    def write(self, target: str, **instants_s: float) -> None:
        """Have the worker write other limits of a request."""
        new = {f"{name.removesuffix('_s')}_ns": int(instant * 1e9) for name, instant in instants_s.items()}
        self.requests[target] = self.requests[target]._replace(**new)

    def run_until(self, instant_s: float) -> None:
        """Look whenever the watch wants to."""
        while self.watch.next_look is not None and self.watch.next_look <= instant_s:
            self.now_s = max(self.now_s, self.watch.next_look)
            self.watch.look(self._pools)
        self.now_s = instant_s

    def sleep_of_the_master(self, seconds: float, *, noticed: bool) -> None:
        """Let time pass in which the master does not run; its loop notices that only if it had a deadline."""
        self.now_s += seconds
        if noticed:
            self.watch.excuse(seconds)

    def _write(self, event: str, message: str, **fields: Any) -> None:
        self.told.append((event, fields["target"], round(self.now_s - 1000, 3)))
        if request_id := self.requests[fields["target"]].request_id:
            assert message.endswith(f", id {request_id}")
            assert fields["request_id"] == request_id
        else:
            assert "request_id" not in fields


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_request_that_begins_beside_another_has_its_own_time_and_no_more(bench: Bench) -> None:
    bench.begin("/first")
    bench.requests["/first"] = bench.requests["/first"]._replace(request_id="9319f38349bcfb0a-000000002a")
    bench.run_until(1001)
    bench.begin("/second")
    bench.run_until(1100)
    assert bench.told == [
        ("request-slow", "/first", 5.5),
        ("request-slow", "/second", 6.5),
        ("request-slow", "/first", 11.5),
        ("request-slow", "/second", 12.5),
        ("request-slow", "/first", 23.5),
        ("request-slow", "/second", 24.5),
        ("request-slow", "/first", 47.5),
        ("request-slow", "/second", 48.5),
        ("request-deadline", "/first", 60.8),
        ("request-deadline", "/second", 61.8),
    ]


def test_what_the_worker_has_told_or_done_itself_is_left_to_it(bench: Bench) -> None:
    bench.begin("/told")
    bench.run_until(1005.2)
    bench.write("/told", slow_s=1010)
    bench.run_until(1010.2)
    bench.write("/told", slow_s=1020, deadline_s=1080)
    bench.run_until(1020.2)
    bench.write("/told", slow_s=0)
    bench.run_until(1080.5)
    bench.write("/told", deadline_s=0)
    bench.run_until(1200)
    assert bench.told == []


def test_nobody_is_late_because_the_master_was_suspended(bench: Bench) -> None:
    bench.begin("/seen")
    bench.run_until(1001)
    bench.begin("/unseen")
    bench.sleep_of_the_master(100, noticed=True)
    bench.begin("/later")
    bench.run_until(1300)
    deadlines = [(target, at_s) for event, target, at_s in bench.told if event == "request-deadline"]
    assert deadlines == [("/seen", 160.8), ("/unseen", 161.8), ("/later", 161.8)]


def test_a_request_that_rang_while_the_master_was_suspended_counts_from_its_waking(bench: Bench) -> None:
    bench.begin("/rang")
    bench.sleep_of_the_master(100, noticed=False)
    bench.run_until(1300)
    assert bench.told[0] == ("request-slow", "/rang", 105.5)
    assert bench.told[-1] == ("request-deadline", "/rang", 160.8)
    bench.requests.clear()
    bench.run_until(1400)
    assert bench.watch.next_look is None


def test_a_worker_and_a_master_that_were_suspended_together_do_not_excuse_twice(bench: Bench) -> None:
    bench.begin("/both")
    bench.run_until(1001)
    bench.sleep_of_the_master(100, noticed=True)
    bench.write("/both", slow_s=1105, deadline_s=1160)
    bench.run_until(1300)
    assert bench.told[0] == ("request-slow", "/both", 105.5)
    assert bench.told[-1] == ("request-deadline", "/both", 160.8)
