"""The mold: loads the application of a pool once, freezes it, and then only forks workers (and helpers) from it.

Runs only in the mold: a child of the master that has dropped its privileges before any application code runs.
It forks on the master's word, each worker through an intermediate that exits at once, so that the worker
becomes the master's child (the master is the nearest subreaper). See docs/decisions/0002-mold-and-subreaper.md.
"""

from __future__ import annotations

import gc
import os
import select
import traceback
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from prefork import child, environment, helper, privileges, temporary
from prefork.birth import Birth, Loaded, WorkerMain, load
from prefork.channel import Channel, ChannelClosed, Message, clip
from prefork.config import Pool
from prefork.contexts import Contexts
from prefork.errors import ExitStatus, PreforkError
from prefork.heritage import Heritage, close_all_but
from prefork.hooks import BeforeFork, MoldLoaded
from prefork.leftovers import leftovers
from prefork.log import Logs
from prefork.log.capture import capture_output
from prefork.process import spawn_orphan
from prefork.scoreboard import Scoreboard
from prefork.ties import Ties

MOST_LEFTOVERS = 20
"""How many threads and sockets are named to the master."""


class Mold:
    """A mold of one pool and generation."""

    def __init__(
        self,
        heritage: Heritage,
        pool: Pool,
        logs: Logs,
        scoreboard: Scoreboard,
        tls: Contexts,
        worker_main: WorkerMain,
    ) -> None:
        self._heritage = heritage
        self._pool = pool
        self._logs = logs
        self._log = logs.log
        self._scoreboard = scoreboard
        self._tls = tls
        self._worker_main = worker_main
        self._channel = Channel.from_fd(heritage.channel)
        self._ties = Ties(heritage.ties)
        self._loaded: Loaded | None = None

    def run(self, preload: bool) -> int:
        """Become ready, then fork on order until the master is gone or has no more use for it."""
        gc.disable()  # a collection would leave holes in pages that workers could share
        try:
            if not self._become_ready(preload):
                return ExitStatus.OK
        except ChannelClosed:
            return ExitStatus.OK  # nobody waits for this mold any more
        except PreforkError as error:
            return self._fail(str(error))
        except Exception:
            return self._fail(traceback.format_exc())
        gc.freeze()
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.register(self._heritage.lifeline, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if self._heritage.lifeline in ready:
                    return ExitStatus.OK
                while (message := self._channel.receive()) is not None:
                    self._obey(message)
        except ChannelClosed:
            return ExitStatus.OK

    def _become_ready(self, preload: bool) -> bool:
        """Drop privileges, load, and tell the master. Return False if this mold must not fork."""
        began = monotonic()
        environment.enter(self._pool)  # an env_file may be for root's eyes only
        if self._heritage.metrics_folder is not None:
            environment.collect_metrics_in(self._heritage.metrics_folder)
        privileges.drop(privileges.resolve(self._pool.user, self._pool.group))
        self._check_tmp_dir()
        if not preload:
            self._channel.send("ready", preload=False, took_s=monotonic() - began)
            return True
        with child.tied_to_master(self._heritage.lifeline):
            self._loaded = load(self._pool)
            argument = MoldLoaded(self._pool.name, self._heritage.generation, self._loaded.app)
            self._loaded.hooks.run("mold_loaded", argument, self._log)
        left = leftovers(self._heritage.descriptors())
        if left:
            if self._pool.preload == "auto":
                self._channel.send("unsuitable", left=[*left.threads, *left.sockets][:MOST_LEFTOVERS])
                return False
            self._log.warning(
                "preload-leftovers",
                "the import left behind what a worker does not inherit: "
                + ", ".join([*left.threads, *left.sockets]),
                threads=left.threads,
                sockets=left.sockets,
            )
        self._channel.send("ready", preload=True, took_s=monotonic() - began)
        return True

    def _check_tmp_dir(self) -> None:
        """Warn if nothing can be spooled: for most requests and responses that does not matter."""
        folder = temporary.directory(self._pool.tmp_dir)
        if self._pool.limits.spool and (why := temporary.problem(folder)) is not None:
            self._log.warning(
                "tmp-dir-unusable",
                f"tmp_dir: cannot write a temporary file in {folder}: {why}; larger request bodies are answered with "
                "507, and slow readers of large responses may be cut off. Give tmp_dir a writable directory (with "
                "a read-only root a tmpfs), or set limits.spool to 0",
                tmp_dir=folder,
            )

    def _fail(self, text: str) -> int:
        self._channel.send("failed", text=clip(text))
        return ExitStatus.APPLICATION

    def _obey(self, order: Message) -> None:
        match order.kind:
            case "spawn" if len(order.fds) == 2:
                self._spawn(int(order.fields["slot"]), int(order.fields["cell"]), *order.fds)
            case "hook" if len(order.fds) == 2:
                self._run_hook(str(order.fields["hook"]), order.fields["told"], *order.fds)
            case "spawn" | "hook":  # the kernel left descriptors out: this process has too many open
                self._log.error("fork-failed", "cannot take an order to fork: no descriptors are left")
                for fd in order.fds:
                    os.close(fd)
            case "reopen":
                self._logs.replace(order.fds)

    def _spawn(self, slot: int, cell: int, channel: int, last_words: int) -> None:
        """Fork a worker."""
        if self._loaded is not None:
            name = f"{self._pool.name}.{slot}"
            argument = BeforeFork(self._pool.name, self._heritage.generation, name)
            self._loaded.hooks.run("before_fork", argument, self._log)
        birth = Birth(
            heritage=self._heritage.for_worker(channel, last_words),
            pool=self._pool,
            slot=slot,
            cell=cell,
            scoreboard=self._scoreboard,
            logs=self._logs,
            loaded=self._loaded,
            tls=self._tls,
        )
        self._fork(f"a worker for slot {slot}", lambda: self._worker_main(birth), channel, last_words)

    def _run_hook(self, hook: str, told: Mapping[str, Any], channel: int, last_words: int) -> None:
        """Fork a helper process."""
        heritage = self._heritage.for_worker(channel, last_words)
        birth = helper.Birth(heritage, self._pool, self._logs, self._loaded, hook, told)
        self._fork(f"a helper process for the hook {hook}", lambda: helper.main(birth), channel, last_words)

    def _fork(self, what: str, main: Callable[[], int], channel: int, last_words: int) -> None:
        """Fork a child of the master. When it fails, its channel closes without a hello, which tells the master."""
        try:
            with self._ties.kept():
                spawn_orphan(lambda: self._be_born(main))
        except OSError as error:
            self._log.error("fork-failed", f"cannot fork {what}: {error}")
        finally:
            os.close(channel)
            os.close(last_words)

    def _be_born(self, main: Callable[[], int]) -> int:
        """Run in the child. What is open beyond its heritage was opened by the application, and stays so."""
        self._channel.close()
        os.close(self._heritage.last_words)
        return main()


def main(
    heritage: Heritage,
    pool: Pool,
    logs: Logs,
    scoreboard: Scoreboard,
    tls: Contexts,
    preload: bool,
    worker_main: WorkerMain,
) -> int:
    """Run as the mold; return its exit status."""
    close_all_but(heritage.descriptors())
    child.begin(heritage, f"prefork: mold {pool.name} gen {heritage.generation}")
    pid = os.getpid()
    identity = f"{pool.name} mold gen {heritage.generation} pid {pid}"
    logs = logs.bind(
        identity, slow_s=pool.timeouts.slow, pool=pool.name, generation=heritage.generation, pid=pid
    )
    capture_output(logs)
    try:
        return Mold(heritage, pool, logs, scoreboard, tls, worker_main).run(preload)
    finally:
        logs.flush()
