"""``python -m bench.status``: what it costs to show the status of a server of 100 workers.

CPU time of a process that does nothing else, of made-up workers: the admin process reads, the master publishes. Takes
some seconds.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Callable
from time import monotonic, process_time
from types import SimpleNamespace
from typing import Any

from prefork.bulletin import Bulletin
from prefork.cell import READY
from prefork.figures import Memory
from prefork.master.account import Account
from prefork.master.chronicle import MOST_DEATHS, Chronicle
from prefork.master.estate import Estate, ServerState
from prefork.master.plan import Worker
from prefork.master.totals import Totals
from prefork.master.worker_states import State
from prefork.observer import Observer
from prefork.scoreboard import Scoreboard
from prefork.status import status

WORKERS = 100
ROUNDS, REPEATS = 7, 40


def cost_ms(work: Callable[[], object]) -> float:
    """Return the CPU time of one call, in the best of some rounds."""
    found = []
    for _ in range(ROUNDS):
        before = process_time()
        for _ in range(REPEATS):
            work()
        found.append((process_time() - before) / REPEATS * 1000)
    return min(found)


def busy_board(threads: int) -> Scoreboard:
    """Return a scoreboard with counters of all kinds, and a request in every other thread."""
    chance = random.Random(6)
    board = Scoreboard.create("web", 1, cells=2 * WORKERS + 64, threads=threads, doorbell=-1)
    for cell in board.cells[:WORKERS]:
        cell.claim(os.getpid())
        cell.set_state(READY)
        cell.connections(5)
        cell.publish_memory(Memory(90_000_000, 40_000_000, 30_000_000))
        for thread in cell.threads:
            for _ in range(60):
                start_ns = thread.enter(b"GET /some/path HTTP/1.1")
                method, code = chance.choice(["GET", "POST", "PUT"]), chance.choice([200, 204, 404, 500])
                thread.leave(method, code, start_ns - chance.randrange(10**10), 1000)
            if chance.random() < 0.5:
                thread.enter(b"GET /reports/2026?token=abc HTTP/1.1")
    return board


def master(board: Scoreboard, listeners: list[socket.socket], bulletin: Bulletin) -> tuple[Account, Any]:
    """Return an account of a server with these workers and as many deaths as are kept; and its pool."""
    workers = {
        at: Worker(at, at, 1, at, monotonic(), None, State.READY, os.getpid(), monotonic())
        for at in range(WORKERS)
    }
    pool: Any = SimpleNamespace(
        name="web",
        bounds=None,
        can_boot=True,
        current=SimpleNamespace(
            config=SimpleNamespace(threads=len(board.cells[0].threads)),
            listeners=[
                SimpleNamespace(
                    address="127.0.0.1:8000",
                    backlog=2048,
                    family=listener.family,
                    inode=os.fstat(listener.fileno()).st_ino,
                )
                for listener in listeners
            ],
        ),
        generations={1: SimpleNamespace(scoreboard=board)},
        table=SimpleNamespace(wanted=WORKERS, workers=workers),
        totals=Totals(board.cells[0].counts(), WORKERS, {"retired": 50}),
    )
    config: Any = SimpleNamespace(name="web", files=("app.yaml",), digest="0123456789ab")
    chronicle, log = Chronicle(), SimpleNamespace()
    facts = dict.fromkeys(("reason", "detail", "exit_status", "signal", "expected", "uptime_s", "requests"))
    for _ in range(MOST_DEATHS):
        chronicle.note_death(facts, "x" * 4000, slot="web.1", pid=1, pool="web", generation=1)
    estate = Estate(config, 1, ServerState.SERVING, pools={"web": pool})
    return Account(estate, chronicle, bulletin, lambda: [pool], log), pool  # type: ignore[arg-type]


def main() -> None:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    for threads in (1, 8):
        board, bulletin = busy_board(threads), Bulletin.create()
        account, pool = master(board, listeners, bulletin)
        account.publish()
        observer, boards = Observer(Bulletin(bulletin.fd)), {("web", 1): board}

        def read(observer: Observer = observer, boards: dict[tuple[str, int], Scoreboard] = boards) -> str:
            sight = observer.look(boards)
            assert sight is not None
            return json.dumps(status(sight.document, sight.boards, monotonic(), show_queries=False))

        def change(account: Account = account, pool: Any = pool) -> None:
            pool.table.wanted += 1
            account.publish()

        def read_changed() -> str:
            change()
            return read()

        changing = cost_ms(change)
        print(f"{WORKERS} workers of {threads} threads, {MOST_DEATHS} deaths with stacks:")
        print(f"  a status, as JSON of {len(read()) / 1024:.0f} KiB: {cost_ms(read):.2f} ms of CPU time")
        print(f"  of a document that has changed: {cost_ms(read_changed) - changing:.2f} ms")
        print(f"  the master, a turn in which nothing changed: {cost_ms(account.publish):.2f} ms")
        print(f"  the master, a turn in which something did: {changing:.2f} ms")


if __name__ == "__main__":
    main()
