"""The status as it is shown, from documents and cells of which some are nonsense."""

import json
import os
import random
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from prefork.cell import DRAINING, READY
from prefork.figures import Counts, Memory
from prefork.records import plain
from prefork.scoreboard import Scoreboard
from prefork.status import status


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    made = Scoreboard.create("web", 3, cells=8, threads=2, doorbell=-1)
    yield made
    made.close()


def worker(cell: int, state: str = "ready", pid: int | None = None) -> dict[str, Any]:
    return {
        "slot": f"web.{cell}",
        "pid": pid,
        "generation": 3,
        "cell": cell,
        "state": state,
        "spawned_at": 90.0,
        "ready_at": None,
    }


def document(*workers: dict[str, Any], **pool: Any) -> dict[str, Any]:
    web = {
        "workers_wanted": 2,
        "bounds": None,
        "threads": 2,
        "totals": plain(Counts(requests=100, by_method={"GET": {"2xx": 100}})),
        "spawned": 5,
        "deaths": {"died": 3},
        "cpu_ns": {},
        "generations": [3],
        "listeners": [],
        "workers": list(workers),
        **pool,
    }
    return {
        **dict.fromkeys(("name", "version", "pid", "state", "generation", "config", "config_hash")),
        **dict.fromkeys(("ready", "healthy", "reloads_total", "last_upgrade")),
        "started_at": 50.0,
        "reloads": [{"result": "ok"}, {"result": "failed"}],
        "pools": {"web": web},
        "deaths": [
            {"slot": "web.1", "detail": "GET /a?token=secret after 1.0 s"},
            {"slot": None, "detail": None},
        ],
    }


def shown(found: dict[str, Any], board: Scoreboard | None, **kwargs: Any) -> dict[str, Any]:
    """Return the status, which always has a form in JSON, in which nothing is infinite."""
    made = status(found, {} if board is None else {("web", 3): board}, 100.0, **kwargs)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    return made


def test_states_of_workers_are_what_master_and_cell_know_together(board: Scoreboard) -> None:
    for cell in board.cells[:4]:
        cell.set_state(READY)
    board.cells[1].threads[1].enter(b"GET / HTTP/1.1")
    board.cells[2].threads[0].enter(b"GET / HTTP/1.1")
    board.cells[3].set_state(DRAINING)
    workers = [worker(0), worker(1), worker(2, "draining"), worker(3), worker(4, "booting"), worker(99)]
    workers.append(worker(1, "booting"))  # the master has not heard yet that it serves
    made = shown(document(*workers), board)["pools"]["web"]
    states = [each["state"] for each in made["workers"]]
    assert states == ["idle", "busy", "draining", "draining", "booting", "idle", "busy"]
    assert made["workers"][5]["requests"] is None
    assert made["workers"][5]["connections"] is None
    assert [each["pid"] for each in made["workers"]] == [None] * 7


def test_running_requests_are_shown_oldest_first_and_without_queries_if_so_wanted(board: Scoreboard) -> None:
    cell = board.cells[0]
    cell.set_state(READY)
    second = cell.threads[1].enter(b"POST /b?secret=1 HTTP/1.1", 0, 2_000_000_000)
    first = cell.threads[0].enter(b"GET /a?secret=" + b"x" * 300)  # cut
    cell.threads[1].leave("POST", 200, second, 10)
    start = cell.threads[1].enter(b"POST /b?secret=1 HTTP/1.1", 0, 1_000_000_000)
    found = document(worker(0))
    now = start / 1e9 + 1.5
    made = status(found, {("web", 3): board}, now, show_queries=False)
    assert "secret" not in json.dumps(made)
    running = made["pools"]["web"]["workers"][0]["running"]
    assert made["pools"]["web"]["workers"][0]["current"] == running[0]
    assert [(r["method"], r["target"], r["thread"], r["slow"]) for r in running] == [
        ("GET", "/a", 0, False),
        ("POST", "/b", 1, True),
    ]
    assert running[1]["elapsed_s"] == 1.5
    assert running[0]["elapsed_s"] == pytest.approx(1.5 + (start - first) / 1e9, abs=0.001)
    assert running[0]["request_id"] is None
    made = status(found, {("web", 3): board}, now)
    assert made["pools"]["web"]["workers"][0]["running"][1]["target"] == "/b?secret=1"
    assert made["deaths"][0]["detail"] == "GET /a?token=secret after 1.0 s"
    assert (
        found["deaths"][0]["detail"] == "GET /a?token=secret after 1.0 s"
    )  # it is the reader's for the next time


def test_counters_are_those_of_the_dead_and_the_living(board: Scoreboard) -> None:
    cell = board.cells[0]
    cell.add_accepted()
    for code in (200, 200, 404, 503):
        cell.threads[code % 2].leave("GET", code, cell.threads[0].enter(b"GET / HTTP/1.1"), 10)
    pool = shown(document(worker(0)), board)["pools"]["web"]
    assert (pool["requests"], pool["errors"], pool["accepted"], pool["sent_bytes"]) == (104, 1, 1, 40)
    assert pool["by_method"] == {"GET": {"2xx": 102, "4xx": 1, "5xx": 1}}
    assert sum(pool["latency"]["application"]) == 4
    assert len(pool["latency"]["application"]) == len(pool["latency"]["bounds_s"]) + 1
    assert pool["workers"][0]["requests"] == 4
    # Of a generation whose scoreboard has not come yet only the rest is known.
    pool = shown(document(worker(0)), None)["pools"]["web"]
    assert (pool["requests"], pool["workers"][0]["requests"]) == (100, None)


def test_what_a_worker_scribbles_harms_only_what_is_shown_of_it(board: Scoreboard) -> None:
    good, bad = board.cells[0], board.cells[1]
    good.threads[0].leave("GET", 200, 1, 10)
    chance = random.Random(6)
    for _ in range(50):
        bad._memory[:] = chance.randbytes(len(bad._memory))
        pool = shown(document(worker(0), worker(1)), board, show_queries=False)["pools"]["web"]
        assert pool["requests"] == 101
        assert pool["workers"][0]["requests"] == 1
        assert len(pool["workers"][1]["running"]) <= 2
    bad._memory[:] = b"\xff" * len(bad._memory)
    pool = shown(document(worker(0), worker(1)), board)["pools"]["web"]
    assert pool["requests"] == 101
    assert [pool["workers"][1][key] for key in ("connections", "rss_bytes", "uss_bytes")] == [None] * 3
    assert all(running["elapsed_s"] >= 0 for running in pool["workers"][1]["running"])


def test_figures_of_the_kernel(board: Scoreboard) -> None:
    board.cells[0].publish_memory(Memory(3, 2, 1))
    with socket.create_server(("127.0.0.1", 0), backlog=7) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]
        inode = os.fstat(listener.fileno()).st_ino
        listeners = [
            {"address": "a", "backlog": 9, "family": int(listener.family), "inode": inode},
            {"address": "b", "backlog": 9, "family": int(listener.family), "inode": 1},
        ]
        found = document(worker(0, pid=os.getpid()), worker(1, pid=2**22 + 1), listeners=listeners)
        made = status(found, {("web", 3): board}, monotonic())["pools"]["web"]
        for client in clients:
            client.close()
    assert made["listeners"] == [
        {"address": "a", "queue": 2, "backlog": 7},
        {"address": "b", "queue": None, "backlog": 9},
    ]
    ours, gone = made["workers"]
    assert ours["cpu_s"] > 0
    assert gone["cpu_s"] is None
    assert made["slots"]["web.1"] == {"cpu_s": None}
    assert [ours[f"{kind}_bytes"] for kind in ("rss", "pss", "uss")] == [3, 2, 1]
    assert [gone[f"{kind}_bytes"] for kind in ("rss", "pss", "uss")] == [None] * 3


def test_cpu_time_of_a_slot_goes_on_with_its_next_worker() -> None:
    def cpu_s(*workers: dict[str, Any]) -> dict[str, Any]:
        found = document(*workers, cpu_ns={"web.0": 5_000_000_000, "web.7": 1})
        slots: dict[str, Any] = shown(found, None)["pools"]["web"]["slots"]
        return {name: figures["cpu_s"] for name, figures in slots.items()}

    us, nobody = os.getpid(), 2**22 + 1
    assert cpu_s(worker(0)) == {"web.0": 5.0}  # its pid is not known yet
    assert cpu_s(worker(0, pid=us))["web.0"] > 5.0
    assert cpu_s(worker(0, pid=us), worker(0, pid=us), worker(1))["web.1"] == 0.0
    for both in ((us, nobody), (nobody, us)):  # one has just ended: the master has not told yet what it took
        assert cpu_s(*[worker(0, pid=pid) for pid in both]) == {"web.0": None}
