"""The commands of the control socket: what each does, and what it waits for.

Runs in the master. Arguments come from whoever may connect, and are checked; what makes no sense is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from prefork import __version__
from prefork.config import Config, Loaded, in_force, needs_restart
from prefork.errors import ExitStatus, PreforkError, UsageError
from prefork.master import control_workers
from prefork.master.control_diff import difference
from prefork.master.control_request import Request, Wait
from prefork.master.control_waits import ReloadWait, StopWait, Succession, UpgradeWait
from prefork.master.control_workers import WorkerCommands, refuse_while_stopping


class Master(control_workers.Master, Protocol):
    """What commands need of the supervisor."""

    @property
    def started_with(self) -> Config:
        """Some of its keys hold until a restart."""

    @property
    def config(self) -> Config:
        """What was reloaded last."""

    @property
    def upgrade_stage(self) -> str:
        """How far an upgrade is; ``none`` if none is under way."""

    def status(self) -> dict[str, Any]:
        """Return the status document."""

    def read_config(self) -> Loaded:
        """Read the config again. Raises ``ConfigError``."""

    def reload(self) -> None:
        """Reload now, or after what goes on."""

    def upgrade(self) -> None:
        """Go on as the version of prefork that is installed now."""

    def stop(self) -> None:
        """Stop gracefully."""

    def reopen_logs(self) -> tuple[int, list[str]]:
        """Open the log files again; return how many, and what failed."""


class Commands:
    """``expect`` is told of what waits."""

    def __init__(self, master: Master, succession: Succession, expect: Callable[[Wait], None]) -> None:
        self._master = master
        self._succession = succession
        self._expect = expect
        workers = WorkerCommands(master, expect)
        self._actions: dict[str, Callable[[Request], None]] = {
            "hello": self._hello,
            "status": self._status,
            "reload": self._reload,
            "upgrade": self._upgrade,
            "upgraded": self._upgraded,
            "stop": self._stop,
            "diff": self._diff,
            "scale": workers.scale,
            "recycle": workers.recycle,
            "stacks": workers.stacks,
            "reopen-logs": self._reopen_logs,
        }

    def find(self, name: str) -> Callable[[Request], None]:
        """Return what carries a command out, which raises ``PreforkError`` for the answer. Raises ``UsageError``."""
        if name not in self._actions:
            raise UsageError(
                f"prefork {__version__} has no command {name!r}; it may be one of a later version"
            )
        return self._actions[name]

    def _hello(self, request: Request) -> None:
        """Tell this server from others."""
        started = self._master.started_with
        config = [os.path.abspath(file) for file in started.files]
        request.end("prefork", name=started.name, version=__version__, config=config)

    def _status(self, request: Request) -> None:
        request.end("the status", result=self._master.status())

    # The server

    def _reload(self, request: Request) -> None:
        refuse_while_stopping(self._master, "there is no reload")
        wait = ReloadWait(request, self._master)
        self._expect(wait)  # first: it may fail at once
        self._master.reload()
        if not request.waits:
            request.end("the reload is asked for")

    def _upgrade(self, request: Request) -> None:
        refuse_while_stopping(self._master, "there is no upgrade")
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
