"""Taking connections from the shared listeners; used by the serve loop in a worker's main thread.

Each listener is in the epoll with ``EPOLLEXCLUSIVE``, so the kernel wakes one idle worker for a connection.
That worker must not let it lie: it takes first, then serves, and takes only one, since its siblings are woken
for the others. A worker that cannot serve a new connection at once takes its listeners out of the epoll, for
any of the ``reasons`` at a time, and tries to take once more in case it had just been woken.

The relay, by which siblings hand connections over, is one more source beside the listeners.
"""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import Any, Protocol

from prefork.quiesce import quiesce
from prefork.worker.deadlines import Deadlines
from prefork.worker.loop import Loop
from prefork.worker.relay import HandoverLost, Nudged, Relay

OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
PAUSE_S = 0.5
"""How long to stop accepting when the system cannot give one more descriptor."""

LEAVE_S = 0.1
"""How long to leave the relay to siblings that have room, before idle connections are closed for what is in it."""

FORGET_S = 10.0
"""When it is news again that there are no descriptors."""

REST_S = 0.01
"""How long to leave the relay to siblings that have fewer connections."""

Source = socket.socket | Relay


class Log(Protocol):
    """The part of ``prefork.log.Log`` that is needed here."""

    def error(self, event: str, message: str, /, **fields: object) -> None: ...


class Acceptor:
    """The listeners of a worker, and the connections taken from them that are not yet served."""

    def __init__(
        self,
        loop: Loop,
        listeners: Sequence[socket.socket],
        get_request: Callable[[socket.socket], tuple[socket.socket, Any]],
        is_full: Callable[[], bool],
        make_room: Callable[[], bool],
        log: Log,
    ) -> None:
        self.listening: dict[int, Source] = {}
        """The sources that are in the epoll now; none while there is a reason not to accept."""
        self.taken: deque[tuple[socket.socket, Any, Source]] = deque()
        """What was taken: the socket, the client's address or what a sibling says of it, and where it is from."""
        self.relay: Relay | None = None
        """To be set before ``open``, if at all."""
        self._has_left_relay = False
        self.owes_a_take = True
        """May it have been woken for what it has not taken yet? Not while the steward stands in for the loop: the main
        thread took before it served."""
        self.reasons: set[str] = set()
        self._listeners = list(listeners)
        self._loop = loop
        self._get_request = get_request
        self._is_full = is_full
        self._make_room = make_room
        self._log = log
        self._pause = loop.deadlines(PAUSE_S, self.release)
        self._rest: Deadlines[None] = loop.deadlines(REST_S, lambda _: self._register())
        self._told_at = self._short_since = -FORGET_S
        """When it was last logged that there are no descriptors; when there last began to be no room for the relay."""
        for listener in listeners:
            listener.setblocking(False)
            if listener.family != socket.AF_UNIX:
                # Accepted sockets inherit it, which saves a call for each. A response goes out in one write.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open(self) -> None:
        """Begin to accept."""
        self._register()

    def take(self, source: Source) -> bool:
        """Take one connection; return whether there was one."""
        try:
            if isinstance(source, Relay):
                if self._is_full() and self._may_leave_it():
                    return False
                # Before what comes from listeners: its request has waited already.
                self.taken.appendleft((*source.accept(), source))
            else:
                sock, address = self._get_request(source)
                self.taken.append((sock, address, source))
        except (BlockingIOError, ConnectionAbortedError):
            # A sibling was faster, or the client has given up.
            return False
        except Nudged:
            for listener in list(self.listening.values()):
                if listener is not source:
                    self.take(listener)
            return True
        except HandoverLost as lost:
            self._log.error("handover-lost", str(lost))
            return True
        except OSError as error:
            if error.errno in OUT_OF_DESCRIPTORS:
                if not isinstance(source, Relay) or not self._may_leave_it():
                    self._out_of_descriptors(error)
            elif error.errno == errno.EINVAL and not isinstance(source, Relay):
                self._forget(source)
            # Any other is an error of that connection, which is gone; see accept(2).
            return False
        return True

    def hold(self, reason: str, *, take: bool = True) -> None:
        """Accept no more until this reason is released.

        Without ``take`` nothing is taken once more: for a caller that handled all its events before, and whose
        siblings may be idle.
        """
        if not self.reasons:
            self._unregister(take)
        self.reasons.add(reason)

    def release(self, reason: str) -> None:
        """Withdraw a reason; with the last one accepting begins again."""
        if reason in self.reasons:
            self.reasons.discard(reason)
            self._register()

    def take_one_of_each(self) -> None:
        """Take one connection from everywhere, whatever the epoll has told."""
        for source in list(self.listening.values()):
            self.take(source)

    def take_despite(self, reason: str) -> None:
        """Take one connection of each listener, if nothing but ``reason`` speaks against it."""
        if self.reasons == {reason}:
            for source in self._sources():
                self.take(source)

    def take_rest(self) -> None:
        """Take all that the kernel has accepted. The caller has seen to it that no more come."""
        for listener in list(self._listeners):
            while self.take(listener):
                pass

    def take_handed_over(self) -> None:
        """Take all that siblings have sent, who may be gone when nobody else takes it."""
        if self.relay is not None:
            while self.take(self.relay):
                pass

    def let_siblings_take(self) -> None:
        """Leave the relay to others for a moment, and wake one of them."""
        if self.relay is not None and self._stop_listening(self.relay):
            self._rest.start(None)
            self.relay.nudge()

    def descriptors(self) -> list[int]:
        """Return the descriptors of the listeners that are open, and of connections not yet served."""
        return [sock.fileno() for sock in (*self._listeners, *(taken for taken, *_ in self.taken))]

    def refuse(self, ours: Collection[int]) -> None:
        """Have the kernel refuse new connections to the listeners of these descriptors; close the others."""
        for listener in list(self._listeners):
            if listener.fileno() not in ours:
                self._forget(listener)
            elif problem := quiesce(listener, str(listener.getsockname())):
                self._log.error("quiesce-failed", problem)

    def close(self, *, relay: bool) -> None:
        """Leave the listeners to the other workers, and the ``relay``, too?"""
        for listener in list(self._listeners):
            if self._stop_listening(listener) and self.owes_a_take:
                self.take(listener)
            listener.close()
        self._listeners.clear()
        if relay and self.relay is not None:
            if self._stop_listening(self.relay) and self.owes_a_take:
                self.take(self.relay)
            self._rest.stop(None, None)
            self._has_left_relay = True

    def return_to_relay(self) -> None:
        """Take from the relay again: all the others may leave before us."""
        self._has_left_relay = False
        self._register()

    def _sources(self) -> list[Source]:
        relay = [] if self.relay is None or self._has_left_relay else [self.relay]
        return [*relay, *self._listeners]

    def _register(self) -> None:
        if self.reasons:
            return
        for source in self._sources():
            resting = source is self.relay and None in self._rest.entries
            if source.fileno() not in self.listening and not resting:
                self._loop.epoll.register(source, select.EPOLLIN | select.EPOLLEXCLUSIVE)
                self.listening[source.fileno()] = source

    def _unregister(self, take: bool = True) -> None:
        listening, self.listening = self.listening, {}
        for source in listening.values():
            self._loop.epoll.unregister(source)
        if take:
            for source in listening.values():
                self.take(source)

    def _stop_listening(self, source: Source) -> bool:
        """Take one source out of the epoll; return whether it was there."""
        if self.listening.pop(source.fileno(), None) is None:
            return False
        self._loop.epoll.unregister(source)
        return True

    def _forget(self, listener: socket.socket) -> None:
        """Close one listener. One that was shut down and is empty would be reported for ever."""
        self._listeners.remove(listener)
        self._stop_listening(listener)
        listener.close()

    def _may_leave_it(self) -> bool:
        """Leave what siblings have sent to those that have room, for a moment; return False when it is over."""
        now = monotonic()
        if now - self._short_since >= FORGET_S:
            self._short_since = now
        if now - self._short_since >= LEAVE_S:
            return False
        if self.relay is not None and self.relay.fileno() in self.listening:
            self.let_siblings_take()
        elif self.relay is not None:
            self.relay.nudge()  # taking for the last time, perhaps woken
        return True

    def _out_of_descriptors(self, error: OSError) -> None:
        """Close an idle connection for the new one, or let the siblings have it and pause: never spin."""
        now = monotonic()
        if now - self._told_at >= FORGET_S:
            self._told_at = now
            self._log.error(
                "out-of-descriptors",
                f"cannot accept a connection: {error.strerror}; raise the limit of open files (ulimit -n) "
                "or lower limits.connections",
            )
        if self.relay is not None:
            self.relay.nudge()  # what woke us waits: for a sibling that has descriptors
        if error.errno == errno.EMFILE and self._make_room():
            return
        self._pause.start("descriptors")
        self.hold("descriptors")
