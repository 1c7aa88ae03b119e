"""How a server ends, and what it is told of the end of others; runs only in a worker, in the loop's thread.

Each is called from the loop, that is from the callback of a watched descriptor:

========================  ==================  =================================================
call                      new connections     what is open
========================  ==================  =================================================
``announce_closing()``    still accepted      served, announcing that it will close; no end yet
``drain()``               left to siblings    finished, then ``serve_forever`` returns
``drain(final=True)``     still accepted      served, announcing that it will close
``close_listeners()``     the rest is taken   as after ``drain()``
``master_gone(ours)``     refused             what was received is finished, within 2 s
``quit()``                left alone          dropped
========================  ==================  =================================================
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from prefork.quiesce import HANDSHAKES_S
from prefork.worker.accepting import Acceptor
from prefork.worker.deadlines import Deadlines
from prefork.worker.loop import Loop
from prefork.worker.threads import ApplicationThreads

MASTER_GONE_S = 2.0
"""How long a worker may stay after its master."""


class Ends:
    """The part of a ``Server`` by which the worker around it has it end."""

    def __init__(self, loop: Loop, acceptor: Acceptor) -> None:
        self.loop = loop
        self.acceptor = acceptor
        self.threads: ApplicationThreads[Any] | None = None
        self.draining = False
        """Was the worker told to leave?"""
        self.closing = False
        """Does the whole server stop, now or soon?"""
        self._ending = False
        self._stopped = False
        self._handshakes: Deadlines[None] = loop.deadlines(HANDSHAKES_S, lambda _: self.close_listeners())
        self._last_chance: Deadlines[None] = loop.deadlines(MASTER_GONE_S, self._leave)

    def announce_closing(self) -> None:
        """Prepare the clients for the stop of the whole server, which serves on for now."""
        self.closing = True

    def drain(self, final: bool = False) -> None:
        """Finish what is open and end; see the table at the top of the module.

        ``final``: no other worker takes over, so go on accepting until ``close_listeners``.
        """
        self.draining = True
        if not final:
            # When all stop, what siblings still send has to be taken by somebody.
            self.acceptor.close(relay=not self.closing)
            self._ending = True

    def close_listeners(self) -> None:
        """Take the connections that the kernel has accepted so far, close the listeners, and drain."""
        self.acceptor.take_rest()
        self.drain()

    def master_gone(self, ours: Collection[int] = ()) -> None:
        """Finish what was received, without a master to replace us: leave soon.

        ``ours``: descriptors of the listeners that nobody else will serve. They refuse new connections from
        now on, and those that wait in them are taken.
        """
        self.announce_closing()
        self.acceptor.refuse(ours)
        self.drain(final=True)
        self._handshakes.start(None)
        self._last_chance.start(None)

    def quit(self) -> None:
        """Return from ``serve_forever`` after what the main thread does now."""
        self._stopped = True

    @property
    def is_ending(self) -> bool:
        """Does it take nothing more, and end when nothing is open?"""
        return self._ending

    def _leave(self, _: None) -> None:
        if self.threads is not None and self.threads.busy:
            self._last_chance.start(None)
        else:
            self.quit()
