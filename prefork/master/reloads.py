"""Reloads, one after the other: when one may begin, how it ends, and what is said about it.

Runs in the master. ``reload.py`` is the way of a single one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import monotonic
from typing import Protocol

from prefork.config import Config, Loaded, needs_restart
from prefork.config.admin_pool import NAME as ADMIN
from prefork.errors import ExitStatus, PreforkError
from prefork.log import Log
from prefork.master.cgroup import memory_use
from prefork.master.estate import Estate, ServerState
from prefork.master.failure import told
from prefork.master.loop import Loop
from prefork.master.news import News, ReloadBegan, ReloadEnded, ReloadQueued
from prefork.master.notify import Notifier
from prefork.master.pool import Pool
from prefork.master.reload import Reload, Tools
from prefork.master.surge import fit


class Master(Tools, Protocol):
    """What reloads need of the supervisor."""

    def internal_error(self) -> None:
        """Report the exception that is being handled as a mistake of our own."""

    def became_idle(self) -> None:
        """No reload runs or waits."""


class Reloads:
    """At most one reload at a time, and one that waits."""

    def __init__(
        self,
        estate: Estate,
        read_config: Callable[[], Loaded],
        master: Master,
        loop: Loop,
        log: Log,
        notifier: Notifier,
        news: News,
    ) -> None:
        self._estate = estate
        self._read_config = read_config
        self._master = master
        self._loop = loop
        self._log = log
        self._notifier = notifier
        self._news = news
        self.started_with = estate.config
        """Some of its keys hold until a restart, whatever reloads say."""
        self.last_generation = estate.generation
        """The highest number that a reload has had, also a failed one."""
        self._current: Reload | None = None
        self._began_at = 0.0
        self._before = estate.config
        self._notes: list[str] = []
        """What the current reload cannot apply."""
        self._is_wanted = False
        """One more is to be done after what goes on now."""
        self._is_due = False
        """It is about to begin."""

    @property
    def coming_pools(self) -> Collection[Pool]:
        """The pools that the current reload adds."""
        return () if self._current is None else self._current.new_pools.values()

    @property
    def is_idle(self) -> bool:
        """The server serves, no reload runs or waits, and no listener closes."""
        waits = self._is_wanted or self._is_due
        return self._estate.state is ServerState.SERVING and not self._estate.closing and not waits

    def request(self) -> None:
        """Read the config again and roll to it; what comes in the middle of something is done after that."""
        self._is_due = False
        estate = self._estate
        if estate.state is ServerState.STOPPING:
            self._log.info("reload-ignored", "no reload: the server stops")
            return
        if estate.state is not ServerState.SERVING or estate.closing:
            # It may want back a listener that is about to be closed.
            self._is_wanted = True
            doing = "closing listeners" if estate.state is ServerState.SERVING else estate.state.value
            self._log.info("reload-queued", f"the reload waits: the server is {doing}")
            self._news.tell(ReloadQueued(doing))
            return
        self._begin()

    def do_waiting(self) -> None:
        """Do the reload that waits, if there is one and nothing is in its way any more."""
        if self._is_wanted and self._estate.state is ServerState.SERVING and not self._estate.closing:
            self._is_wanted, self._is_due = False, True
            self._loop.call_later(0, self.request)
        elif self.is_idle:
            self._master.became_idle()

    def gate_reached(self, pool: Pool, generation: int) -> None:
        """The pool has the first batch of a generation ready."""
        if self._current is not None and self._current.generation == generation:
            self._current.gate_reached(pool.name)

    def all_ready(self, pool: Pool, generation: int) -> bool:
        """The pool has all of a generation ready; return whether that generation is a reload's."""
        if self._current is None or self._current.generation != generation:
            return False
        if self._current.all_ready(pool.name):
            self._commit(self._current)
        return True

    def admin_ready(self) -> None:
        """The admin process that the current reload brings is ready."""
        if self._current is not None and self._current.all_ready(ADMIN):
            self._commit(self._current)

    def admin_failed(self, reason: str, details: str) -> None:
        """It cannot take over."""
        if self._current is not None:
            self.failed(self._current.generation, f"the admin process: {reason}", details)

    def failed(self, generation: int, reason: str, details: str) -> bool:
        """A generation cannot take over; return whether it is a reload's, which then is rolled back."""
        reload = self._current
        if reload is None or reload.generation != generation:
            return False
        self._current = None  # what fails from now on belongs to a generation that was given up
        reload.roll_back()
        message, traceback = told(reason, details)
        self._log.error(
            "reload-failed",
            f"the reload failed after {reload.took_s:.2f} s, generation {self._estate.generation} serves on: "
            f"{message}",
            generation=reload.generation,
            traceback=traceback,
        )
        self._end(reload.config, message, traceback, ExitStatus.APPLICATION)
        return True

    def abandon(self) -> None:
        """Roll the current reload back: the server stops."""
        if self._current is not None:
            self._current.roll_back()
            self._current = None

    def _begin(self) -> None:
        self._estate.state = ServerState.RELOADING
        self.last_generation += 1
        self._notifier.reloading("reloading")
        self._log.info("reload-started", f"reload to generation {self.last_generation}")
        self._began_at = monotonic()
        self._before = self._estate.config
        self._notes = []
        self._news.tell(ReloadBegan(self.last_generation))
        config: Config | None = None
        try:
            config = self._read_config().config
            for key in needs_restart(self.started_with, config):
                self._note("needs-restart", f"{key}: a reload does not apply it, a restart does", key=key)
            config, complaint = fit(config, self._estate.pools, memory_use())
            if complaint:
                self._note("reload-one-by-one", complaint)
            self._current = Reload(self._estate, config, self.last_generation, self._master)
            self._current.start()
        except Exception as error:  # an OSError says that there are no more descriptors, processes or memory
            if not isinstance(error, PreforkError | OSError):
                self._master.internal_error()
            self._log.error(
                "reload-failed",
                f"the reload failed, generation {self._estate.generation} serves on: {error}",
                generation=self.last_generation,
            )
            status = error.status if isinstance(error, PreforkError) else ExitStatus.INTERNAL
            self._end(config, str(error), None, status)  # the next reload must not wait for this one

    def _commit(self, reload: Reload) -> None:
        try:
            for complaint in reload.commit():
                self._note("listener-unchanged", complaint)
            self._log.info(
                "reloaded",
                f"generation {reload.generation} serves, {reload.took_s:.2f} s after the reload began",
                generation=reload.generation,
                took_s=round(reload.took_s, 3),
            )
        finally:
            self._end(reload.config, None)  # whatever happens, the next reload must be possible

    def _note(self, event: str, message: str, **fields: object) -> None:
        self._log.warning(event, message, **fields)
        self._notes.append(message)

    def _end(
        self,
        config: Config | None,
        failure: str | None,
        traceback: str | None = None,
        status: ExitStatus = ExitStatus.OK,
    ) -> None:
        self._current = None
        self._news.tell(
            ReloadEnded(
                self.last_generation,
                monotonic() - self._began_at,
                self._before,
                config,
                failure,
                traceback,
                status,
                tuple(self._notes),
            )
        )
        if self._estate.state is ServerState.RELOADING:
            self._estate.state = ServerState.SERVING
            self._notifier.ready(f"the reload failed: {failure}" if failure else "serving")
            self.do_waiting()
