"""The one flat epoll of a worker: who waits for which descriptor, and until when.

Runs in the worker's main thread. Knows nothing of sockets or HTTP. Everything is level-triggered, so that a
handler may leave work for the next turn, and every handler must bear being called without cause: an event
may be older than the descriptor under its number.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from prefork.worker.deadlines import NEVER, Deadlines, nearest

MOST_EVENTS = 1023
"""So many ready descriptors are told at a time."""

Handler = Callable[[int], None]
"""Called with the epoll events of its descriptor."""


class Loop:
    """Descriptors, deadlines, and work from other threads. Idle, it sleeps without a timeout."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.handlers: dict[int, Handler] = {}
        """By descriptor. Replacing the entry of a watched one is all it takes to change who is called."""
        self.soon: deque[Callable[[], None]] = deque()
        """Called in the next turn, after the descriptors that are ready by then."""
        self.asleep = False
        self._overdue = False
        self._queues: list[Deadlines[Any]] = []
        self._posted: deque[Callable[[], None]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._wake_fd, self._woken)

    def watch(self, fd: int, handler: Handler, events: int = select.EPOLLIN) -> None:
        """Call ``handler`` whenever ``fd`` has any of ``events``, an error, or was hung up."""
        self.epoll.register(fd, events)
        self.handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``; must come before its close.

        Otherwise the kernel goes on reporting the dead number while another process holds the description.
        """
        del self.handlers[fd]
        self.epoll.unregister(fd)

    def deadlines(self, timeout_s: float, expire: Callable[[Any], None]) -> Deadlines[Any]:
        """Make a queue of deadlines that this loop keeps."""
        queue = Deadlines(timeout_s, expire)
        self._queues.append(queue)
        return queue

    def post(self, call: Callable[[], None]) -> None:
        """Have ``call`` run in the loop's thread; from any thread. The only method for other threads.

        The eventfd is written only if the loop sleeps or is about to. No wake can be lost: the loop sets
        ``asleep`` before it looks at the queue for the last time, this appends before it reads ``asleep``.
        """
        self._posted.append(call)
        if self.asleep:
            self.asleep = False
            os.eventfd_write(self._wake_fd, 1)

    def wait(self) -> list[tuple[int, int]]:
        """Sleep until something is ready or due; return the ready descriptors with their events."""
        self._overdue = True
        if self.soon:
            return self.epoll.poll(0, MOST_EVENTS)
        self.asleep = True
        if self._posted:
            self.asleep = False
            return self.epoll.poll(0, MOST_EVENTS)
        due = nearest(self._queues)
        if due == NEVER:
            events = self.epoll.poll(None, MOST_EVENTS)
            self._overdue = False
        elif (timeout_s := due - monotonic()) > 0:
            events = self.epoll.poll(timeout_s, MOST_EVENTS)
            # What becomes due while the events are handled is seen by the next wait.
            self._overdue = not events
        else:
            events = self.epoll.poll(0, MOST_EVENTS)
        self.asleep = False
        return events

    def finish_turn(self) -> None:
        """Run what other threads posted, what was put off, and last what is overdue.

        Deadlines come after the descriptors, so that nobody is cut off whose bytes already are here.
        """
        posted = self._posted
        while posted:
            posted.popleft()()
        for _ in range(len(self.soon)):
            self.soon.popleft()()
        if self._overdue:
            now = monotonic()
            for queue in self._queues:
                queue.run(now)

    def close(self) -> None:
        self.epoll.close()
        os.close(self._wake_fd)

    def _woken(self, events: int) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            pass
