"""What the master publishes of itself, and when; what of its past it keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prefork.bulletin import Bulletin
from prefork.config import load
from prefork.errors import ExitStatus
from prefork.figures import Counts
from prefork.master.account import Account
from prefork.master.chronicle import LONGEST_STACK, MOST_DEATHS, MOST_RELOADS, Chronicle, shortened
from prefork.master.estate import Estate, ServerState
from prefork.master.failure import in_one_line
from prefork.master.news import ReloadEnded, Upgraded, UpgradeRefused
from prefork.master.obituary import facts_of_unborn
from prefork.master.plan import Worker
from prefork.master.totals import Totals
from prefork.master.worker_states import State
from prefork.records import build, plain


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, event: str, message: str, **fields: object) -> None:
        self.events.append(event)


def pool(name: str, *states: State, requests: int = 0, can_boot: bool = True, generation: int = 1) -> Any:
    """Return something like a pool, with a worker in each of the states."""
    workers = {
        at: Worker(at, at, generation, at, spawned_at=1.0, deadline=None, state=state)
        for at, state in enumerate(states)
    }
    for worker in workers.values():
        if worker.state is not State.BOOTING:
            worker.ready_at = 2.0
    return SimpleNamespace(
        name=name,
        bounds=None,
        can_boot=can_boot,
        current=SimpleNamespace(config=SimpleNamespace(threads=1), listeners=()),
        generations={generation: SimpleNamespace(scoreboard=f"of {name} {generation}")},
        table=SimpleNamespace(wanted=2, workers=workers),
        totals=Totals(Counts(requests=requests), len(states), {"died": requests} if requests else {}),
    )


class Master:
    """The parts around an account."""

    def __init__(self, bulletin: Bulletin, *pools: Any, leaving: tuple[Any, ...] = ()) -> None:
        self.estate = Estate(load(["app.yaml"], environ={}).config, 1, ServerState.SERVING)
        self.estate.pools = {each.name: each for each in pools}
        self.estate.leaving = list(leaving)
        self.chronicle = Chronicle()
        self.log = Log()
        self.bulletin = bulletin
        self.account = Account(
            self.estate,
            self.chronicle,
            bulletin,
            lambda: [*self.estate.pools.values(), *self.estate.leaving],
            self.log,  # type: ignore[arg-type]
        )

    def die(self, detail: str = "", stack: str = "") -> None:
        facts = facts_of_unborn(Worker(1, 0, 1, 0, 1.0, None), 1.0) | {"detail": detail}
        self.chronicle.note_death(facts, stack, slot="web.0", pid=None, pool="web", generation=1)

    def published(self) -> dict[str, Any]:
        self.account.publish()
        edition = Bulletin(self.bulletin.fd).read()
        assert edition is not None
        found: dict[str, Any] = json.loads(edition.document)
        return found


@pytest.fixture
def bulletin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bulletin]:
    monkeypatch.chdir(tmp_path)
    Path("app.yaml").write_text("app: myapp:app\n")
    made = Bulletin.create(half_bytes=64 * 1024)
    yield made
    made.close()


def test_it_is_published_when_it_has_changed_or_cells_have(bulletin: Bulletin) -> None:
    web = pool("web", State.READY)
    master = Master(bulletin, web)
    master.account.publish()
    first = bulletin.number
    master.account.publish()
    assert bulletin.number == first
    web.table.workers[0].state = State.DRAINING
    assert master.published()["pools"]["web"]["workers"][0]["state"] == "draining"
    assert bulletin.number == first + 2
    bulletin.touch()
    assert master.published() == json.loads(json.dumps(master.account.document()))
    assert bulletin.number == first + 4
    master.die()
    assert len(master.published()["deaths"]) == 1


R, B, D = State.READY, State.BOOTING, State.DRAINING


@pytest.mark.parametrize(
    ("state", "is_hasty", "states", "can_boot", "shown"),
    [
        (ServerState.BOOTING, False, (B, B), True, ("booting", False, True)),
        (ServerState.SERVING, False, (R, B), True, ("serving", True, True)),
        (ServerState.RELOADING, False, (R, D), True, ("reloading", True, True)),
        (ServerState.SERVING, False, (B, D), True, ("serving", False, True)),
        (ServerState.SERVING, False, (R, R), False, ("serving", True, False)),
        (ServerState.STOPPING, False, (R, R), False, ("draining", False, True)),
        (ServerState.STOPPING, True, (R, R), True, ("stopping", False, True)),
    ],
)
def test_it_is_ready_while_every_pool_serves_and_healthy_while_one_can_boot(
    bulletin: Bulletin,
    state: ServerState,
    is_hasty: bool,
    states: tuple[State, ...],
    can_boot: bool,
    shown: tuple[str, bool, bool],
) -> None:
    master = Master(bulletin, pool("web", *states, can_boot=can_boot))
    master.estate.state, master.estate.is_hasty = state, is_hasty
    found = master.account.document()
    assert (found["state"], found["ready"], found["healthy"]) == shown
    master.estate.pools["other"] = pool("other", B)
    found = master.account.document()
    assert (found["ready"], found["healthy"]) == (False, True)


def test_a_pool_that_leaves_is_shown_with_the_one_that_took_its_name(bulletin: Bulletin) -> None:
    old = pool("web", D, requests=5, generation=1)
    master = Master(bulletin, pool("web", R, requests=2, generation=3), leaving=(old,))
    master.chronicle.depart("web", Totals(Counts(requests=10), 4, {"died": 4}))
    web = master.published()["pools"]["web"]
    assert web["totals"]["requests"] == 17
    assert (web["spawned"], web["deaths"], web["generations"]) == (6, {"died": 11}, [1, 3])
    assert [(w["slot"], w["generation"]) for w in web["workers"]] == [("web.0", 3), ("web.0", 1)]
    assert master.account.boards() == {("web", 1): "of web 1", ("web", 3): "of web 3"}
    old.is_gone = True
    master.estate.forget_gone(master.chronicle)
    assert master.published()["pools"]["web"]["totals"] == web["totals"]
    assert master.estate.leaving == []


def test_what_does_not_fit_goes_without_stacks_and_then_without_the_oldest_deaths(bulletin: Bulletin) -> None:
    master = Master(bulletin, pool("web", R))
    for number in range(MOST_DEATHS + 3):
        master.die(f"{number}", "s" * 100)
    deaths = master.published()["deaths"]
    assert [death["detail"] for death in deaths] == [str(at) for at in range(MOST_DEATHS + 2, 2, -1)]
    assert master.log.events == []
    for number in range(MOST_DEATHS):
        master.die(f"{number}", "s" * 2 * LONGEST_STACK)
    deaths = master.published()["deaths"]
    assert [death["stack"] for death in deaths] == [None] * MOST_DEATHS
    for number in range(MOST_DEATHS):
        master.die(f"{number} " + "d" * 3000)
    deaths = master.published()["deaths"]
    assert 0 < len(deaths) < MOST_DEATHS
    assert deaths[0]["detail"].startswith(f"{MOST_DEATHS - 1} ")
    assert master.log.events == ["status-too-long"]
    # If even the rest is too long, what was there stays.
    before = bulletin.number
    master.estate.pools = {"p" * 70_000: pool("p" * 70_000, R)}
    master.account.publish()
    assert bulletin.number == before


def test_the_chronicle_keeps_the_last_reloads_and_the_last_upgrade() -> None:
    chronicle = Chronicle(started_at=1.0)
    config: Any = None
    for number in range(2, MOST_RELOADS + 5):
        error = "it is wrong" if number % 2 else None
        chronicle.hear(ReloadEnded(number, 1.5, config, config, error, None, ExitStatus.OK))
    assert [reload["generation"] for reload in chronicle.reloads] == list(range(MOST_RELOADS + 4, 4, -1))
    assert chronicle.reloads[0] | {"ended_at": ""} == {
        "result": "ok",
        "error": None,
        "generation": MOST_RELOADS + 4,
        "took_s": 1.5,
        "ended_at": "",
    }
    assert chronicle.reloads_total == {"ok": 12, "failed": 11}
    chronicle.hear(Upgraded("2", "1"))
    assert chronicle.last_upgrade is not None
    assert chronicle.last_upgrade | {"ended_at": ""} == {
        "result": "ok",
        "error": None,
        "version": "2",
        "predecessor": "1",
        "ended_at": "",
    }
    chronicle.hear(UpgradeRefused("no", 'Traceback:\n  File "a.py", line 3\nOSError: gone\n'))
    assert chronicle.last_upgrade["error"] == "no: OSError: gone (a.py:3)"
    chronicle.depart("web", Totals(Counts(requests=3, by_method={"GET": {"2xx": 3}}), 2, {"died": 1}))
    assert build(Chronicle, json.loads(json.dumps(plain(chronicle)))) == chronicle
    # What an older version wrote lacks what it did not know.
    assert build(Chronicle, {"started_at": 1.0}) == Chronicle(started_at=1.0)


def test_a_stack_is_cut_where_it_says_least() -> None:
    latest_first = "Current thread (most recent call first):\n" + "f\n" * LONGEST_STACK
    latest_last = "Traceback (most recent call last):\n" + "f\n" * LONGEST_STACK + "OSError: why"
    assert shortened(latest_first).startswith("Current thread")
    assert shortened(latest_last).endswith("OSError: why")
    assert len(shortened(latest_first)) == len(shortened(latest_last)) == LONGEST_STACK
    assert shortened("short") == "short"


@pytest.mark.parametrize(
    ("traceback", "told"),
    [
        (None, "what"),
        ("no frames", "what"),
        ('Traceback:\n  File "a.py", line 3, in f\n    x\nErr: why\nmore', "what: Err: why (a.py:3)"),
        ('Traceback:\n  File "a.py", line 3\n  File "b.py", line 4\nErr', "what: Err (b.py:4)"),
        (
            'Thread (most recent call first):\n  File "a.py", line 3 in f\n  File "b.py", line 4',
            "what (a.py:3)",
        ),
    ],
)
def test_an_error_is_told_in_one_line_with_its_place(traceback: str | None, told: str) -> None:
    assert in_one_line("what", traceback) == told
