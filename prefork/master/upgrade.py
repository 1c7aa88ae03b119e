"""The upgrade in place: the code that is installed now rehearses in a child, then this process becomes it.

Runs in the master, which serves on whatever comes of it. An upgrade waits until the server is idle: it serves, no
reload runs or waits, no listener closes. See docs/decisions/0013-upgrade-in-place.md.
"""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from enum import Enum
from typing import NoReturn, Protocol

from prefork import __version__
from prefork.log import Logs
from prefork.master import state
from prefork.master.command import Command
from prefork.master.failure import told
from prefork.master.loop import Loop, Timer
from prefork.master.news import News, UpgradeRefused, UpgradeStage
from prefork.master.signals import all_blocked
from prefork.process import Exit, Process, become_program, spawn_program

CHECK_S = 60.0
"""How long the rehearsal may take."""

_LOGS_S = 0.1
"""How long a stalled log may hold the exec up; what it has not taken then is lost."""

_LONGEST_ANSWER_BYTES = 16 * 1024


class Stage(Enum):
    NONE = "none"
    WAITING = "waiting"
    """asked for; the server is not idle yet"""
    CHECKING = "checking"
    """the rehearsal runs"""
    CHECKED = "checked"
    """passed; the server is not idle"""


class Master(Protocol):
    """What an upgrade needs of the supervisor."""

    @property
    def is_idle(self) -> bool:
        """It serves, and nothing is under way."""

    def record(self) -> state.MasterRecord:
        """Return all that the next version must know; only while it is idle."""

    def take_signals(self) -> bool:
        """Act on the signals that have come; return whether they were more than deaths."""


class Upgrades:
    """At most one upgrade at a time."""

    def __init__(self, command: Command, loop: Loop, logs: Logs, master: Master, news: News) -> None:
        self._command = command
        self._loop = loop
        self._logs = logs
        self._log = logs.log
        self._master = master
        self._news = news
        self._stage = Stage.NONE
        self._check: Process | None = None
        self._answer = -1
        """The file that the rehearsal prints to."""
        self._timer: Timer | None = None
        self._timed_out = False

    @property
    def stage(self) -> Stage:
        return self._stage

    def request(self) -> None:
        """Upgrade as soon as the server is idle."""
        if self._stage is not Stage.NONE:
            self._log.info("upgrade-ignored", "an upgrade is under way already")
            return
        self._log.info(
            "upgrade-started", f"upgrade of prefork {__version__}: the installed version is checked"
        )
        self._enter(Stage.WAITING)
        self.proceed()

    def proceed(self) -> None:
        """Take the next step if the server is idle; to be called whenever it becomes so."""
        if self._stage in (Stage.WAITING, Stage.CHECKED) and self._master.is_idle:
            self._loop.call_later(0, self._step)

    def abandon(self) -> None:
        """The server stops."""
        self._stage = Stage.NONE
        if self._check is not None:
            self._check.signal(signal.SIGKILL)

    def child_died(self, pid: int, reap: Callable[[int], Exit]) -> bool:
        """Reap a child if it is the rehearsal; return whether it is."""
        if self._check is None or self._check.pid != pid:
            return False
        exit = reap(pid)
        self._check.close()
        self._check = None
        if self._timer is not None:
            self._timer.cancel()
        size = os.fstat(self._answer).st_size
        answer = os.pread(self._answer, _LONGEST_ANSWER_BYTES, max(0, size - _LONGEST_ANSWER_BYTES))
        os.close(self._answer)
        if self._stage is Stage.NONE:
            return True
        if exit.exit_status == 0:
            self._enter(Stage.CHECKED)
            self.proceed()
        elif self._timed_out:
            self._refuse(f"its check did not end within {CHECK_S:g} s", "")
        else:
            text = answer.decode(errors="replace").strip("\n")
            if text.startswith("  File "):  # of a mistake in the syntax of the very first file
                text = f"Traceback (most recent call last):\n{text}"
            self._refuse(f"its check ended with {exit}", text)
        return True

    def _step(self) -> None:
        if not self._master.is_idle:
            return
        try:
            if self._stage is Stage.WAITING:
                self._start_check()
            elif self._stage is Stage.CHECKED:
                with all_blocked():
                    if self._master.take_signals():
                        self.proceed()  # what they ask for comes first
                    else:
                        self._become()
        except Exception:
            # No descriptors, processes or memory; or a mistake of ours, which must not end the server.
            self._refuse("it cannot be started", traceback.format_exc())

    def _start_check(self) -> None:
        self._timed_out = False
        fd = state.write(self._master.record())
        try:
            self._answer = os.memfd_create("prefork-check", os.MFD_CLOEXEC)
            try:
                command = self._command.installed("check", fd)
                self._check = Process(spawn_program(command, [fd, *_descriptors(fd)], self._answer))
            except BaseException:
                os.close(self._answer)
                raise
        finally:
            os.close(fd)
        self._enter(Stage.CHECKING)
        self._timer = self._loop.call_later(CHECK_S, self._give_up)

    def _give_up(self) -> None:
        self._timed_out = True
        if self._check is not None:
            self._check.signal(signal.SIGKILL)

    def _become(self) -> NoReturn:
        """Exec. Raises whatever goes wrong."""
        self._log.info("upgrade-exec", f"prefork {__version__} makes way for the installed version")
        self._news.tell(UpgradeStage("exec"))
        self._logs.flush(_LOGS_S)
        fd = state.write(self._master.record())
        left_open = [each for each in (fd, *_descriptors(fd)) if not os.get_inheritable(each)]
        try:
            for each in left_open:
                os.set_inheritable(each, True)
            become_program(self._command.installed("adopt", fd))
        finally:
            for each in left_open:
                os.set_inheritable(each, False)
            os.close(fd)

    def _refuse(self, reason: str, details: str) -> None:
        self._stage = Stage.NONE
        message, rest = told(f"the upgrade is refused, prefork {__version__} serves on: {reason}", details)
        self._log.error("upgrade-refused", message, traceback=rest)
        self._news.tell(UpgradeRefused(message, rest))

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._news.tell(UpgradeStage(stage.value))


def _descriptors(fd: int) -> list[int]:
    """Return the descriptors that a state speaks of."""
    found: list[int] = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))["descriptors"]
    return found
