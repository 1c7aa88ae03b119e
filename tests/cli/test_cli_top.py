"""The pure parts of ``prefork top``: rates and percentiles, keys, and the lines that are shown."""

from __future__ import annotations

from typing import Any

import pytest

from prefork.cli import figures
from prefork.cli.top.history import History
from prefork.cli.top.keys import split_keys
from prefork.cli.top.layout import layout, plain
from prefork.cli.top.view import Act, Mode, View
from prefork.latency import percentile


def worker(slot: str, pid: int, **more: Any) -> dict[str, Any]:
    return {
        "slot": slot, "pid": pid, "generation": 1, "state": "idle", "requests": 0, "errors": 0, "handed_over": 0,
        "connections": 0, "current": None, "running": [], "rss_bytes": None, "pss_bytes": None, "uss_bytes": None,
        "cpu_s": 0.0, "uptime_s": 3.0,
    } | more  # fmt: skip


def running(target: str, elapsed_s: float, *, slow: bool = False) -> dict[str, Any]:
    request = {
        "method": "GET",
        "target": target,
        "request_id": None,
        "thread": 0,
        "elapsed_s": elapsed_s,
        "slow": slow,
    }
    return {"state": "busy", "current": request, "running": [request]}


def status(*workers: dict[str, Any], uptime_s: float = 10.0, **more: Any) -> dict[str, Any]:
    pool = {
        "requests": sum(each["requests"] for each in workers), "errors": 0, "workers": list(workers),
        "listeners": [{"address": "127.0.0.1:8000", "queue": 3, "backlog": 2048}],
        "connections": {"idle": 5, "reading": 0, "running": 1, "writing": None},
        "latency": {"bounds_s": [0.01, 0.1], "application": more.pop("application", [0, 0, 0])},
    }  # fmt: skip
    return {
        "name": "shop", "version": "1.0", "pid": 7, "state": "serving", "generation": 2, "uptime_s": uptime_s,
        "last_reload": None, "pools": {"shop": pool}, "deaths": [],
    } | more  # fmt: skip


def looks(*answers: dict[str, Any]) -> History:
    """A history of looks that are two seconds apart."""
    history = History()
    for at, answer in enumerate(answers):
        history.add(at * 2.0, answer)
    return history


def text(history: History, view: View | None = None, width: int = 80, height: int = 24, **more: Any) -> str:
    return plain(layout(history, view or View(), width, height, history.at or 0.0, **more), width)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 0, 0], 0.5, 0.005),
        ([0, 10, 0], 0.5, 0.055),
        ([5, 5, 0], 0.5, 0.01),
        ([90, 9, 1], 0.99, 0.1),
        ([0, 0, 1], 0.5, 0.1),
    ],
)
def test_percentiles(counts: list[int], share: float, expected: float | None) -> None:
    assert percentile([0.01, 0.1], counts, share) == (None if expected is None else pytest.approx(expected))


def test_rates_are_those_between_the_last_two_looks() -> None:
    history = looks(
        status(worker("shop.0", 10, requests=5, cpu_s=1.0), application=[5, 0, 0]),
        status(worker("shop.0", 10, requests=25, cpu_s=2.0), application=[5, 20, 0]),
    )
    traffic = history.traffic("shop")
    assert traffic.requests_per_s == 10
    assert traffic.percentiles_s[0] == pytest.approx(0.055)  # of the twenty, not of those before
    work = history.work("shop", history.status["pools"]["shop"]["workers"][0])  # type: ignore[index]
    assert (work.requests_per_s, work.cpu_share) == (10, 0.5)


def test_a_server_that_was_started_anew_begins_anew() -> None:
    history = looks(
        status(worker("shop.0", 10, requests=50)), status(worker("shop.0", 10, requests=1), uptime_s=1.0)
    )
    assert history.traffic("shop").requests_per_s is None


def test_the_screen_holds_in_80_columns_and_shows_what_matters() -> None:
    death = {
        "slot": "shop.1", "pid": 9, "reason": "request-deadline", "detail": "GET /x after 60.0 s", "signal": "SIGKILL",
        "exit_status": None, "expected": False, "at": "2026-11-24T10:00:00.000Z",
    }  # fmt: skip
    mold = {**death, "slot": None, "pool": "shop", "reason": "mold-died"}
    failed = {
        "result": "failed", "error": "app.yaml:3:1: workers: no\nmore", "generation": 3, "took_s": 0.1,
        "ended_at": "2026-11-24T10:00:00Z",
    }  # fmt: skip
    busy = worker("shop.0", 10, uss_bytes=9 << 20, **running("/a\x1b[2J", 7.0, slow=True))
    lines = text(looks(status(busy, deaths=[death, mold], last_reload=failed))).splitlines()
    shown = "\n".join(lines)
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) <= 24
    for part in ("shop serving", "generation 2", "FAILED: app.yaml:3:1: workers: no", "3/2048", "9.0M", "7.0s",
                 "GET /a\\x1b", "request-deadline, SIGKILL: GET /x after 60.0 s", "shop mold pid 9"):  # fmt: skip
        assert part in shown
    assert "\x1b" not in shown


def test_a_silent_server_is_said_to_be_silent_and_its_last_answer_stays() -> None:
    history = looks(status(worker("shop.0", 10)))
    shown = plain(layout(history, View(), 80, 24, 9.0, "connection refused"), 80)
    assert "no answer for 9.0s" in shown
    assert "connection refused" in shown
    assert "shop.0" in shown


def test_hundreds_of_workers_leave_the_selected_one_in_sight() -> None:
    history = looks(status(*(worker(f"shop.{number}", 1000 + number) for number in range(300))))
    view = View()
    for _ in range(250):
        view.press("down", history)
    assert "shop.250" in text(history, view)


def test_keys_sort_filter_select_and_ask() -> None:
    history = looks(
        status(
            worker("shop.0", 10, uss_bytes=5),
            worker("shop.1", 11, uss_bytes=9),
            worker("shop.2", 12, **running("/report", 2.0)),
        )
    )
    view = View()

    def slots() -> list[str]:
        return [row[1]["slot"] for row in view.rows(history)]

    assert slots() == ["shop.0", "shop.1", "shop.2"]
    view.press("s", history)
    assert slots()[0] == "shop.2"  # by request: the one that runs for longest
    view.sort = "memory"
    assert slots()[0] == "shop.1"
    for key in ("/", *"REPORTS", "backspace", "enter"):
        view.press(key, history)
    assert slots() == ["shop.2"]
    assert view.press("t", history) is Act.STACKS
    assert view.press("r", history) is Act.NONE
    assert view.mode is Mode.CONFIRM
    assert view.press("y", history) is Act.RECYCLE
    view.press("r", history)
    assert view.press("n", history) is Act.NONE
    assert view.note == "not recycled"
    view.press("esc", history)
    assert len(slots()) == 3
    assert view.press("q", history) is Act.QUIT


def test_long_lines_of_a_stack_are_wrapped() -> None:
    view = View()
    view.show("  File " + "x" * 100 + " in app")
    shown = text(looks(status(worker("shop.0", 10))), view)
    assert shown.count("x") == 100
    assert " in app" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_keys_of_a_terminal() -> None:
    assert split_keys("q\x1b[A\x1b[B\r\x1b") == ["q", "up", "down", "enter", "esc"]
    assert split_keys("\x1b[1;5C\x1b[15~a\x07ä") == ["a", "ä"]  # sequences of other keys are left out


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (figures.duration(None), "-"),
        (figures.duration(0.00084), "840us"),
        (figures.duration(0.0124), "12ms"),
        (figures.duration(0.9999), "1.0s"),
        (figures.duration(59.9), "59s"),
        (figures.duration(302), "5m02"),
        (figures.duration(11_220), "3h07"),
        (figures.duration(86_400 * 12), "12d"),
        (figures.size(None), "-"),
        (figures.size(512), "512B"),
        (figures.size(1023), "1.0K"),
        (figures.size(24 << 20), "24.0M"),
        (figures.size(300 << 20), "300M"),
        (figures.count(99_999), "99999"),
        (figures.count(1_234_567), "1234k"),
        (figures.rate(0.25), "0.2"),
        (figures.rate(0), "0"),
        (figures.rate(23_400), "23.4k"),
        (figures.share(0.071), "7%"),
    ],
)
def test_figures_are_short(shown: str, expected: str) -> None:
    assert shown == expected
    assert len(shown) <= 6
