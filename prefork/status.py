"""The status of the server, as ``prefork status --json`` and ``GET /status`` show it.

Made of the document that the master keeps (see ``master.account``) and of the cells of the workers. Nothing that a
worker writes is trusted: what cannot be is shown as unknown, which is null. Pure, but for the figures of the kernel.
Used by the master, for the control socket, and by the admin process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from prefork.cell import DRAINING, READY, Cell, CellWords, sum_of
from prefork.figures import BUCKETS_S, MOST, Connections, Counts, Running, bounds_ns, in_buckets
from prefork.listen_queue import Queue, queues
from prefork.process import cpu_time_ns
from prefork.records import build

FORMAT = 1
"""Raised when a reader of an older one could not make sense of it."""

_QUERY = re.compile(r"\?\S*")
_VERSION = re.compile(r" HTTP/[0-9.]*\Z")


class Cells(Protocol):
    """The cells of a generation, by index."""

    def __getitem__(self, index: int, /) -> Cell: ...


class Board(Protocol):
    """A scoreboard, or a copy of one."""

    @property
    def cells(self) -> Cells: ...

    @property
    def bounds_ns(self) -> Sequence[int]: ...


Boards = Mapping[tuple[str, int], Board]
"""By pool and generation."""


def status(
    document: Mapping[str, Any], boards: Boards, now: float, *, show_queries: bool = True
) -> dict[str, Any]:
    """Return the status at ``now`` (monotonic seconds); without ``show_queries`` no query string is in it."""
    listeners = [listener for pool in document["pools"].values() for listener in pool["listeners"]]
    depths = queues((listener["family"], listener["inode"]) for listener in listeners)
    found = {
        "format": FORMAT,
        **{key: document[key] for key in ("name", "version", "pid", "state", "generation")},
        "uptime_s": _age(document["started_at"], now),
        **{key: document[key] for key in ("config", "config_hash", "ready", "healthy")},
        "last_reload": next(iter(document["reloads"]), None),
        **{key: document[key] for key in ("reloads", "reloads_total", "last_upgrade")},
        "pools": {
            name: _pool(name, pool, boards, depths, now, show_queries)
            for name, pool in document["pools"].items()
        },
        "deaths": document["deaths"],
    }
    if not show_queries:
        found["deaths"] = [
            death | {"detail": death["detail"] and without_queries(death["detail"])}
            for death in document["deaths"]
        ]
    return found


def without_queries(text: str) -> str:
    """Return a text about a request without its query string."""
    return _QUERY.sub("", text)


def last_counts_of(cell: Cell, now: float) -> Counts:
    """Return what a dead worker has counted; nothing at all if that cannot be, for it has written into its cell."""
    counts = cell.last_counts(int(now * 1e9))
    return counts if counts.is_credible() else Counts()


def _pool(
    name: str,
    pool: Mapping[str, Any],
    boards: Boards,
    depths: Mapping[int, Queue],
    now: float,
    show_queries: bool,
) -> dict[str, Any]:
    connections = Connections()
    counted: dict[int, list[CellWords]] = {}
    workers = []
    cpu_ns = {worker["pid"]: cpu_time_ns(worker["pid"]) for worker in pool["workers"] if worker["pid"]}
    for worker in pool["workers"]:
        generation = worker["generation"]
        cell = _cell(boards.get((name, generation)), worker["cell"])
        words = None
        if cell is not None:
            connections = connections.plus(_credible_states(cell))
            words = cell.words()
            if words.is_credible():
                counted.setdefault(generation, []).append(words)
            else:
                words = None
        workers.append(_worker(worker, cell, words, cpu_ns.get(worker["pid"], 0), now, show_queries))
    total = build(Counts, pool["totals"])
    for generation, cells in counted.items():
        total = total.plus(sum_of(cells, boards[name, generation].bounds_ns))
    return {
        **{key: pool[key] for key in ("workers_wanted", "bounds", "threads")},
        **_counters(total),
        "connections": connections._asdict(),
        "latency": _latency(total, _bounds_ns(name, pool, boards)),
        **{key: pool[key] for key in ("spawned", "deaths", "generations")},
        "listeners": [_listener(listener, depths) for listener in pool["listeners"]],
        "slots": _slots(pool["workers"], cpu_ns, pool["cpu_ns"]),
        "workers": workers,
    }


def _counters(counts: Counts) -> dict[str, Any]:
    return {
        "requests": counts.requests,
        "errors": counts.errors,
        "accepted": counts.accepted,
        "handed_over": counts.handed_over,
        "adopted": counts.adopted,
        "slow": counts.slow,
        "deadlines": counts.deadlines,
        "received_bytes": counts.received_bytes,
        "sent_bytes": counts.sent_bytes,
        "by_method": {method: dict(classes) for method, classes in counts.by_method.items()},
        "refused": dict(counts.refused),
    }


def _latency(counts: Counts, bounds: Sequence[int]) -> dict[str, Any]:
    return {
        "bounds_s": [bound / 1e9 for bound in bounds],
        "application": in_buckets(counts.application, bounds),
        "application_sum_s": round(counts.application_ns / 1e9, 6),
        "exchange": in_buckets(counts.exchange, bounds),
        "exchange_sum_s": round(counts.exchange_ns / 1e9, 6),
    }


def _bounds_ns(name: str, pool: Mapping[str, Any], boards: Boards) -> Sequence[int]:
    """Return the bounds of the newest generation."""
    found = [boards[name, number] for number in sorted(pool["generations"]) if (name, number) in boards]
    return found[-1].bounds_ns if found else bounds_ns(BUCKETS_S)


def _credible_states(cell: Cell) -> Connections:
    states = cell.connections_by_state()
    return states if sum(states) < MOST else Connections()


def _slots(
    workers: Iterable[Mapping[str, Any]], cpu_ns: Mapping[int, int], gone_ns: Mapping[str, int]
) -> dict[str, Any]:
    """Return what goes on from one worker of a slot to the next; null if it cannot be told of one that just ends."""
    found: dict[str, int | None] = {}
    for worker in workers:
        name, pid = worker["slot"], worker["pid"]
        so_far = found.get(name, gone_ns.get(name, 0))
        is_known = so_far is not None and (not pid or cpu_ns[pid])
        found[name] = (so_far or 0) + cpu_ns.get(pid, 0) if is_known else None
    return {name: {"cpu_s": None if each is None else round(each / 1e9, 3)} for name, each in found.items()}


def _worker(
    worker: Mapping[str, Any],
    cell: Cell | None,
    words: CellWords | None,
    cpu_ns: int,
    now: float,
    show_queries: bool,
) -> dict[str, Any]:
    running = [] if cell is None else [_request(each, now, show_queries) for each in cell.running()]
    memory = None if cell is None else cell.memory
    return {
        **{key: worker[key] for key in ("slot", "pid", "generation")},
        "state": _state(worker["state"], cell, running),
        "requests": None if words is None else words.requests,
        "errors": None if words is None else words.errors,
        "handed_over": None if words is None else words.handed_over,
        "connections": None if cell is None else _credible(cell.open_connections),
        "current": running[0] if running else None,
        "running": running,
        "rss_bytes": None if memory is None else _credible(memory.rss_bytes),
        "pss_bytes": None if memory is None else _credible(memory.pss_bytes),
        "uss_bytes": None if memory is None else _credible(memory.uss_bytes),
        "cpu_s": round(cpu_ns / 1e9, 3) if cpu_ns else None,
        "uptime_s": _age(worker["spawned_at"], now),
    }


def _state(known: str, cell: Cell | None, running: Sequence[object]) -> str:
    """Return the state of a worker; ``known``: as the master sees it, ``ready`` or what is shown."""
    if known == "booting" and cell is not None and cell.state in (READY, DRAINING):
        known = "ready"  # it serves, and its master has not heard that yet
    if known != "ready":
        return known
    if cell is not None and cell.state == DRAINING:  # it has lost its master's word, or is on its way
        return "draining"
    return "busy" if running else "idle"


def _request(request: Running, now: float, show_queries: bool) -> dict[str, Any]:
    method, _, target = request.line.partition(" ")
    target = _VERSION.sub("", target)
    now_ns = int(now * 1e9)
    return {
        "method": method,
        "target": target if show_queries else without_queries(target),
        "request_id": request.request_id or None,
        "thread": request.thread,
        "elapsed_s": round(max(0, now_ns - request.start_ns) / 1e9, 3),
        "slow": 0 < request.slow_from_ns <= now_ns,
    }


def _listener(listener: Mapping[str, Any], depths: Mapping[int, Queue]) -> dict[str, Any]:
    depth = depths.get(listener["inode"])
    return {
        "address": listener["address"],
        "queue": None if depth is None else depth.waiting,
        "backlog": listener["backlog"] if depth is None else depth.backlog,
    }


def _cell(board: Board | None, index: int) -> Cell | None:
    """Return a cell; None if its scoreboard has not come yet."""
    try:
        return None if board is None else board.cells[index]
    except LookupError:
        return None


def _credible(value: int) -> int | None:
    return value if value < MOST else None


def _age(since: float, now: float) -> float:
    return round(max(0.0, now - since), 3)
