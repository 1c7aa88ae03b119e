"""The commands of the control socket: what each does, and what it waits for.

Runs in the master. Arguments come from whoever may connect, and are checked; what makes no sense is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from prefork import __version__
from prefork.config import Config, Loaded, WorkerRange, in_force, needs_restart
from prefork.errors import ExitStatus, PreforkError, UsageError
from prefork.master.control_diff import difference
from prefork.master.control_request import Request, Wait
from prefork.master.control_stacks import StacksWait
from prefork.master.control_waits import ReloadWait, StopWait, Succession, UpgradeWait, WorkersWait
from prefork.master.plan import Worker
from prefork.master.pool import Pool
from prefork.master.worker_states import State

MOST_SHOWN = 8


class Master(Protocol):
    """What commands need of the supervisor."""

    @property
    def started_with(self) -> Config:
        """Some of its keys hold until a restart."""

    @property
    def config(self) -> Config:
        """What was reloaded last."""

    @property
    def is_stopping(self) -> bool:
        """The server stops."""

    @property
    def upgrade_stage(self) -> str:
        """How far an upgrade is; ``none`` if none is under way."""

    def status(self) -> dict[str, Any]:
        """Return the status document."""

    def read_config(self) -> Loaded:
        """Read the config again. Raises ``ConfigError``."""

    def pools(self) -> Sequence[Pool]:
        """Return all pools, coming and leaving ones too."""

    def serving_pools(self) -> Sequence[Pool]:
        """Return the pools of the config in force."""

    def reload(self) -> None:
        """Reload now, or after what goes on."""

    def upgrade(self) -> None:
        """Go on as the version of prefork that is installed now."""

    def stop(self) -> None:
        """Stop gracefully."""

    def scale(self, pool: Pool, wanted: int) -> None:
        """Want so many workers of a pool."""

    def reopen_logs(self) -> tuple[int, list[str]]:
        """Open the log files again; return how many, and what failed."""


class Commands:
    """``expect`` is told of what waits."""

    def __init__(self, master: Master, succession: Succession, expect: Callable[[Wait], None]) -> None:
        self._master = master
        self._succession = succession
        self._expect = expect

    def run(self, request: Request) -> None:
        """Carry a request out. Raises ``PreforkError``, for the answer."""
        match request.command:
            case "hello":
                request.end("prefork", **self._identity())
            case "status":
                request.end("the status", result=self._master.status())
            case "reload":
                self._reload(request)
            case "upgrade":
                self._upgrade(request)
            case "upgraded":
                self._upgraded(request)
            case "stop":
                self._stop(request)
            case "diff":
                self._diff(request)
            case "scale":
                self._scale(request)
            case "recycle":
                self._recycle(request)
            case "stacks":
                self._stacks(request)
            case "reopen-logs":
                self._reopen_logs(request)
            case _:
                raise UsageError(
                    f"prefork {__version__} has no command {request.command!r}; it may be one of a later version"
                )

    def _identity(self) -> dict[str, Any]:
        """Return what tells this server from others."""
        started = self._master.started_with
        return {
            "name": started.name,
            "version": __version__,
            "config": [os.path.abspath(file) for file in started.files],
        }

    # The server

    def _reload(self, request: Request) -> None:
        self._refuse_while_stopping("there is no reload")
        wait = ReloadWait(request, self._master)
        self._expect(wait)  # first: it may fail at once
        self._master.reload()
        if not request.waits:
            request.end("the reload is asked for")

    def _upgrade(self, request: Request) -> None:
        self._refuse_while_stopping("there is no upgrade")
        wait = UpgradeWait(request)
        self._expect(wait)
        if (stage := self._master.upgrade_stage) != "none":
            wait.stage(stage)  # of one that is under way already
        else:
            self._master.upgrade()
        if not request.waits:
            request.end("the upgrade is asked for")

    def _upgraded(self, request: Request) -> None:
        """How an upgrade went, which was asked of the version before."""
        upgraded = self._succession.upgraded
        if upgraded is None:
            raise PreforkError("this server was not upgraded since it started")
        if upgraded.error is not None:
            request.end(
                upgraded.error,
                ExitStatus.INTERNAL,
                version=upgraded.version,
                error=upgraded.error,
                traceback=upgraded.traceback,
            )
            return
        preface = f"prefork {upgraded.version} has taken over from {upgraded.predecessor}; "
        wait = ReloadWait(request, self._master, self._succession.generation, preface)
        if self._succession.reload is not None:
            wait.ended(self._succession.reload)
        self._expect(wait)

    def _stop(self, request: Request) -> None:
        if request.waits:
            self._expect(StopWait(request, self._master))
        self._master.stop()
        if not request.waits:
            request.end("the server stops")

    def _diff(self, request: Request) -> None:
        master = self._master
        new = master.read_config().config
        before = in_force(master.started_with, master.config)
        request.end(
            "what a reload would change",
            version=__version__,
            needs_restart=list(needs_restart(master.started_with, new)),
            **difference(before, new),
        )

    def _reopen_logs(self, request: Request) -> None:
        count, failures = self._master.reopen_logs()
        if failures:
            raise PreforkError("\n".join(failures))
        request.end(f"{count} log file{'' if count == 1 else 's'} opened again", count=count)

    # Workers

    def _scale(self, request: Request) -> None:
        self._refuse_while_stopping("it cannot be scaled")
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
            return f"{pool.name}: workers ready {ready}/{target}" + (f", {going} to go" if going else "")

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

    def _recycle(self, request: Request) -> None:
        self._refuse_while_stopping("nobody is replaced")
        chosen = self._chosen(request)
        for pool, worker in chosen:
            pool.recycle(worker, "recycled-command")
        total = len(chosen)

        def left() -> str:
            replaced = sum(_is_replaced(pool, worker) for pool, worker in chosen)
            return "" if replaced == total else f"workers replaced {replaced}/{total}"

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

    def _stacks(self, request: Request) -> None:
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
        if name not in pools:
            raise UsageError(f"there is no pool {str(name)!r}; there is {', '.join(pools)}")
        return pools[str(name)]

    def _slot(self, text: object) -> tuple[Pool, int]:
        """Return pool and number of ``shop.0``; of a single pool the number will do."""
        name, _, number = str(text).rpartition(".")
        if not (isinstance(text, str) and number.isascii() and number.isdigit() and len(number) < 6):
            slots = ", ".join(self._some_slots())
            raise UsageError(f"expected a slot such as {slots}, got {text!r}")
        pool = self._pool(name or None)
        if int(number) not in {worker.slot for worker in pool.table.workers.values()}:
            raise UsageError(
                f"there is no worker in {pool.name}.{int(number)}; slots go from {pool.name}.0 to "
                f"{pool.name}.{pool.table.wanted - 1}"
            )
        return pool, int(number)

    def _some_slots(self) -> Iterator[str]:
        for pool in self._master.serving_pools():
            yield f"{pool.name}.0"

    def _refuse_while_stopping(self, consequence: str) -> None:
        if self._master.is_stopping:
            raise PreforkError(f"the server stops: {consequence}")


def _is_replaced(pool: Pool, worker: Worker) -> bool:
    """Tell whether a worker is gone, and its slot is filled by one that serves, or is no longer there."""
    table = pool.table
    if worker.id in table.workers and worker.state is not State.KILLED:
        return False
    return worker.slot >= table.wanted or any(each.slot == worker.slot for each in table.serving())
