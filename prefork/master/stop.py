"""The stop of the server: graceful, quick, or because it could not start.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from prefork.log import Log
from prefork.master.doors import Doors
from prefork.master.estate import Estate, ServerState
from prefork.master.loop import Loop
from prefork.master.news import News, StopBegan
from prefork.master.notify import Notifier
from prefork.master.pool import Pool
from prefork.quiesce import HANDSHAKES_S

QUICK_STOP_S = 2.0
"""How long workers may take in a quick stop to end what they run."""


class Master(Protocol):
    """What a stop needs of the supervisor."""

    def pools(self) -> Sequence[Pool]:
        """Return all pools, coming and leaving ones too."""

    def abandon(self) -> None:
        """Give up what is under way: the server stops."""

    @property
    def doors(self) -> Doors:
        """What has listeners refuse."""


class Stop:
    """The stop that goes on, if one does."""

    def __init__(
        self, estate: Estate, loop: Loop, log: Log, notifier: Notifier, master: Master, news: News
    ) -> None:
        self._estate = estate
        self._loop = loop
        self._log = log
        self._notifier = notifier
        self._master = master
        self._news = news
        self._deadline: float | None = None

    def graceful(self, why: str) -> None:
        """Serve on for the shutdown delay, then drain, all within ``timeouts.graceful``."""
        if self._estate.state is ServerState.STOPPING:
            return
        timeouts = [pool.timeouts for pool in self._estate.config.pools]
        delay_s = (
            0.0 if self._estate.state is ServerState.BOOTING else max(t.shutdown_delay for t in timeouts)
        )
        rest_s = max(t.graceful for t in timeouts) - delay_s
        delay = f", serving on for {delay_s:g} s" if delay_s else ""
        self._begin(f"{why}: stopping gracefully{delay}")
        self._loop.call_later(delay_s, lambda: self.end(rest_s, "stop"))

    def quick(self) -> None:
        """End what runs, but wait for nothing else."""
        self._begin("SIGINT: stopping at once")
        self.end(QUICK_STOP_S, "quick-stop")
        self._broadcast("quit")

    def end(self, within_s: float, reason: str) -> None:
        """Have every worker take what waits in the listeners, drain, and leave within some seconds from now."""
        self._estate.state = ServerState.STOPPING
        self._estate.is_hasty = reason != "stop"
        if self._deadline is None:
            self._master.doors.quiesce(self._estate.listeners_of_pools())
            self._loop.call_later(HANDSHAKES_S, lambda: self._broadcast("close-listeners"))
        deadline = monotonic() + within_s
        self._deadline = min(deadline, self._deadline or deadline)
        for pool in self._master.pools():
            pool.stop(self._deadline, reason)

    def _begin(self, message: str) -> None:
        self._log.info("stopping", message)
        if self._estate.state is ServerState.STOPPING:
            return
        self._notifier.stopping(message)
        self._master.abandon()
        self._estate.state = ServerState.STOPPING
        self._news.tell(StopBegan(message))
        for pool in self._master.pools():
            pool.announce_closing()

    def _broadcast(self, kind: str) -> None:
        for pool in self._master.pools():
            pool.broadcast(kind)
