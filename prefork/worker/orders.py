"""What a worker hears from outside: orders of the master, its death, and SIGTERM.

Runs only in a worker, in the thread of the serve loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from prefork import child
from prefork.cell import DRAINING, Cell
from prefork.channel import Channel, ChannelClosed, Message, clip
from prefork.heritage import BaseHeritage
from prefork.log import Logs
from prefork.worker.deadlines import Deadlines
from prefork.worker.server import Server

LIFELINE_S = 0.1
"""A master that dies closes our channel, too: until then the lifeline tells which of the two has happened."""


class Orders:
    """The worker's ends of channel and lifeline, and an eventfd for SIGTERM."""

    def __init__(
        self,
        channel: Channel,
        heritage: BaseHeritage,
        logs: Logs,
        cell: Cell,
        obey_also: Callable[[Message], bool] | None = None,
    ) -> None:
        """``obey_also`` takes orders of other kinds, with their descriptors; it returns whether it did."""
        self._channel = channel
        self._lifeline = heritage.lifeline
        self._our_listeners = {listener.fd for listener in heritage.listeners if listener.ours}
        self._logs = logs
        self._cell = cell
        self._obey_also = obey_also
        self._term = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._server: Server
        self.reason = "quit"
        """Why the worker leaves, in a word."""
        # Not by set_wakeup_fd: an application that uses asyncio resets that.
        child.on_term(lambda: os.eventfd_write(self._term, 1))

    def attach(self, server: Server) -> None:
        """Have the server's loop watch for orders."""
        self._server = server
        self._given_up: Deadlines[None] = server.loop.deadlines(LIFELINE_S, self._leave)
        server.watch(self._channel.fileno(), self._read)
        server.watch(self._lifeline, self._master_gone)
        server.watch(self._term, self._terminated)

    def descriptors(self) -> tuple[int, ...]:
        """Return what the server watches for us: orders that concern it while it is in the application, too."""
        return self._channel.fileno(), self._lifeline, self._term

    def _read(self) -> None:
        try:
            while (message := self._channel.receive()) is not None:
                self._obey(message)
        except ChannelClosed:
            self._server.unwatch(self._channel.fileno())
            self._given_up.start(None)

    def _obey(self, order: Message) -> None:
        match order.kind:
            case "drain":
                self.reason = str(order.fields.get("reason") or "retired")
                self._cell.set_state(DRAINING)
                self._server.drain(final=bool(order.fields.get("empty_listeners")))
            case "closing":
                self._server.announce_closing()
            case "close-listeners" if self._server.draining:
                self._server.close_listeners()
            case "quit":
                self._server.quit()
            case "reopen":
                self._logs.replace(order.fds)
                return
            case _ if self._obey_also is not None and self._obey_also(order):
                return
        for fd in order.fds:
            os.close(fd)

    def _master_gone(self) -> None:
        self._server.unwatch(self._lifeline)
        self._given_up.stop(None, None)
        self.reason = "master-gone"
        self._server.master_gone(self._our_listeners)

    def _leave(self, _: None) -> None:
        """The channel has closed and the master lives: it has given this worker up."""
        self.reason = "given-up"
        self._server.master_gone()

    def _terminated(self) -> None:
        """Ask to be replaced; when the server stops as a whole the master has other orders for us anyway."""
        try:
            os.eventfd_read(self._term)
        except BlockingIOError:
            return  # the steward was faster
        self.ask_to_leave("asked")

    def tell_late(self, request: str, elapsed_s: float) -> None:
        """Tell the master that a request is past its deadline and that the worker leaves; see ``late.TellMaster``."""
        self.reason = "request-deadline"
        self._cell.set_state(DRAINING)
        try:
            self._channel.send("late", request=clip(request), elapsed_s=round(elapsed_s, 3))
        except ChannelClosed:
            pass

    def ask_to_leave(self, reason: str) -> bool:
        """Ask the master for a successor, in any thread; return False if it has no room for the question now."""
        try:
            return self._channel.send("leave", reason=reason)
        except ChannelClosed:
            return True  # told by the channel itself
