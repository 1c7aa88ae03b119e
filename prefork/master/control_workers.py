"""The commands about workers: have more or fewer, replace them, look at what they do.

Runs in the master. Arguments come from whoever may connect, and are checked; what makes no sense is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Protocol

from prefork.config import WorkerRange
from prefork.errors import ExitStatus, PreforkError, UsageError
from prefork.master.control_request import Request, Wait
from prefork.master.control_stacks import StacksWait
from prefork.master.control_waits import WorkersWait
from prefork.master.plan import Worker
from prefork.master.pool import Pool
from prefork.master.worker_states import State

MOST_SHOWN = 8


class Master(Protocol):
    """What commands about workers need of the supervisor."""

    @property
    def is_stopping(self) -> bool:
        """The server stops."""

    def pools(self) -> Sequence[Pool]:
        """Return all pools, coming and leaving ones too."""

    def serving_pools(self) -> Sequence[Pool]:
        """Return the pools of the config in force."""

    def scale(self, pool: Pool, wanted: int) -> None:
        """Want so many workers of a pool."""


class WorkerCommands:
    """``expect`` is told of what waits."""

    def __init__(self, master: Master, expect: Callable[[Wait], None]) -> None:
        self._master = master
        self._expect = expect

    def scale(self, request: Request) -> None:
        refuse_while_stopping(self._master, "it cannot be scaled")
        pool = self._pool(request.arguments.get("pool"))
        wanted = request.arguments.get("workers")
        if not isinstance(wanted, int) or isinstance(wanted, bool):
            raise UsageError(f"scale: expected a number of workers, got {wanted!r}")
        self._check_scale(pool, wanted)
        span = pool.current.config.workers
        self._master.scale(pool, wanted)
        target = pool.table.wanted

        def left() -> str:
            table = pool.table
            _end_without(pool, request)
            if table.wanted < target or (table.wanted > target and not isinstance(span, WorkerRange)):
                request.end(
                    f"{pool.name}: not {target} workers any more, but {table.wanted} are wanted: a reload or "
                    "another command came in between",
                    ExitStatus.INTERNAL,
                )
            ready = len({worker.slot for worker in table.serving()} & set(range(target)))
            going = sum(worker.slot >= table.wanted for worker in table.workers.values())
            if ready == target and not going:
                return ""
            many = f", {going} to go" if going else ""
            return f"{pool.name}: workers ready {ready}/{target}{many}{_failing([pool])}"

        until = "until the next reload"
        if isinstance(span, WorkerRange):
            until = f"as the lower end, up to {max(span.max, target)}, {until}"
        done = f"{pool.name}: {target} worker{'' if target == 1 else 's'}, {until}"
        fields: dict[str, Any] = {"pool": pool.name, "workers": target}
        if request.waits:
            self._expect(WorkersWait(request, left, done, **fields))
        else:
            request.end(done, **fields)

    def _check_scale(self, pool: Pool, wanted: int) -> None:
        config, most = pool.current.config, pool.current.most_workers
        least = config.workers.min if isinstance(config.workers, WorkerRange) else 1
        if wanted == 0:
            raise UsageError(
                f"{pool.name}: with 0 workers nobody would be served; prefork stop ends the server"
            )
        if wanted < least:
            raise UsageError(
                f"{pool.name}: expected at least {least} worker{'' if least == 1 else 's'}"
                + (
                    f" (workers.min), got {wanted}; change the config and reload"
                    if least > 1
                    else f", got {wanted}"
                )
            )
        if wanted > most:
            raise UsageError(
                f"{pool.name}: expected at most {most} workers, for which this generation has room, got {wanted}; "
                "set workers in the config and reload"
            )

    def recycle(self, request: Request) -> None:
        refuse_while_stopping(self._master, "nobody is replaced")
        chosen = self._chosen(request)
        for pool, worker in chosen:
            pool.recycle(worker, "recycled-command")
        total = len(chosen)

        def left() -> str:
            for pool, _ in chosen:
                _end_without(pool, request)
            replaced = sum(_is_replaced(pool, worker) for pool, worker in chosen)
            failing = _failing({pool.name: pool for pool, _ in chosen}.values())
            return "" if replaced == total else f"workers replaced {replaced}/{total}{failing}"

        many = f"{total} worker{' is' if total == 1 else 's are'}"
        if request.waits:
            slots = [f"{pool.name}.{worker.slot}" for pool, worker in chosen]
            done = f"{many} replaced" + (f": {', '.join(slots)}" if total <= MOST_SHOWN else "")
            self._expect(WorkersWait(request, left, done, slots=slots))
        else:
            request.end(f"{many} to be replaced")

    def _chosen(self, request: Request) -> list[tuple[Pool, Worker]]:
        """Return the workers to replace: all that serve, or that of one slot."""
        if request.arguments.get("all") is True:
            chosen = [
                (pool, worker)
                for pool in self._master.serving_pools()
                for worker in pool.table.serving()
                if not worker.leaving
            ]
            if not chosen:
                raise PreforkError("no worker serves that could be replaced")
            return chosen
        pool, number = self._slot(request.arguments.get("slot"))
        for worker in pool.table.workers.values():
            if worker.slot == number and worker.state is State.READY and not worker.leaving:
                return [(pool, worker)]
        raise PreforkError(
            f"{pool.name}.{number} has no worker that serves and is to stay: it boots, backs off, or is just replaced"
        )

    def stacks(self, request: Request) -> None:
        chosen = [
            (pool, worker)
            for pool in self._master.pools()
            for worker in sorted(pool.table.workers.values(), key=lambda w: (w.slot, w.generation))
            if worker.pid is not None
        ]
        if (slot := request.arguments.get("slot")) is not None:
            wanted = self._slot(slot)
            chosen = [(pool, worker) for pool, worker in chosen if (pool, worker.slot) == wanted]
        if not chosen:
            raise PreforkError("there is no worker" + (f" in {slot}" if slot is not None else ""))
        self._expect(StacksWait(request, chosen))

    # Names

    def _pool(self, name: object) -> Pool:
        pools = {pool.name: pool for pool in self._master.serving_pools()}
        if not pools:
            raise PreforkError("the server has no pool yet")
        if name is None and len(pools) == 1:
            return next(iter(pools.values()))
        if name is None:
            raise UsageError(f"which pool? there are {', '.join(pools)}; for example {next(iter(pools))}=4")
        if not isinstance(name, str) or name not in pools:
            raise UsageError(f"there is no pool {name!r}; there is {', '.join(pools)}")
        return pools[name]

    def _slot(self, text: object) -> tuple[Pool, int]:
        """Return pool and number of ``shop.0``; of a single pool the number will do."""
        name, _, number = str(text).rpartition(".")
        if not (isinstance(text, str) and number.isascii() and number.isdigit() and len(number) < 6):
            examples = ", ".join(self._some_slots())
            raise UsageError(f"expected a slot such as {examples}, got {text!r}")
        pool = self._pool(name or None)
        slot, slots = int(number), pool.table.wanted
        if slot >= slots and slot not in {worker.slot for worker in pool.table.workers.values()}:
            raise UsageError(
                f"there is no slot {pool.name}.{slot}; slots go from {pool.name}.0 to {pool.name}.{slots - 1}"
            )
        return pool, slot

    def _some_slots(self) -> Iterator[str]:
        for pool in self._master.serving_pools():
            yield f"{pool.name}.0"


def refuse_while_stopping(master: Master, consequence: str) -> None:
    """Raise ``PreforkError`` if the server stops."""
    if master.is_stopping:
        raise PreforkError(f"the server stops: {consequence}")


def _end_without(pool: Pool, request: Request) -> None:
    """End a request about a pool that a reload has taken out of the config."""
    if pool.table.is_stopping:
        request.end(f"{pool.name} is no longer in the config", ExitStatus.INTERNAL)


def _failing(pools: Iterable[Pool]) -> str:
    """Return which slots do not get a worker, as the end of a message."""
    slots = [f"{pool.name}.{slot}" for pool in pools for slot in pool.table.backing_off(monotonic())]
    return f"; workers that fail again and again: {', '.join(slots[:MOST_SHOWN])}" if slots else ""


def _is_replaced(pool: Pool, worker: Worker) -> bool:
    """Tell whether a worker is gone, and its slot is filled by one that serves, or is no longer there."""
    table = pool.table
    if worker.id in table.workers and worker.state is not State.KILLED:
        return False
    return worker.slot >= table.wanted or any(each.slot == worker.slot for each in table.serving())
