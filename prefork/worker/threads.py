"""The application threads of a worker with ``threads: N`` above 1.

The main thread runs the loop and is the only one to submit; N daemon threads run the application. A thread
that is done posts to the loop. Threads start one by one when they are first needed, so after every fork, and
a worker that is never busy has none.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from prefork.worker.accepting import Acceptor
from prefork.worker.exchange import ThreadCell, WatchedCell
from prefork.worker.loop import Loop

T = TypeVar("T")


class BindableCell(WatchedCell, Protocol):
    """A thread's cell: ``prefork.thread_cell.ThreadCell``."""

    def bind(self) -> None:
        """Note the calling thread as its owner."""


class ApplicationThreads(Generic[T]):
    """Run ``work(item, cell)`` in one of the threads, then ``done(item)`` in the loop."""

    def __init__(
        self,
        cells: Sequence[BindableCell],
        loop: Loop,
        acceptor: Acceptor,
        work: Callable[[T, ThreadCell], None],
        done: Callable[[T], None],
        begin: Callable[[T], bool],
    ) -> None:
        """``begin`` is asked before an item that had to wait is worked on: it may have gone elsewhere."""
        self._idle_cells = list(reversed(cells))
        self._count = len(cells)
        self._loop = loop
        self._acceptor = acceptor
        self._work = work
        self._done = done
        self._begin = begin
        self._queue: SimpleQueue[T] = SimpleQueue()
        self.waiting: deque[T] = deque()
        """Submitted while all threads were busy, oldest first."""
        self._running = 0
        """Only the main thread counts."""
        self._before_turn = 0
        """While all threads are busy: so many items are done before new connections have their turn."""

    @property
    def full(self) -> bool:
        """Is there no thread for one more item? May be asked from any thread."""
        return self._running >= self._count

    @property
    def busy(self) -> bool:
        """Is anything being worked on, or waiting to be?"""
        return self._running > 0

    def submit(self, item: T) -> None:
        """Have ``item`` worked on as soon as a thread is free. ``work`` must not raise.

        Raises ``RuntimeError``, and keeps nothing, if the system does not even give a first thread.
        """
        if self.full:
            self.waiting.append(item)
            return
        self._start(item)
        if self.full:
            self._before_turn = self._running
            # A connection taken now would wait for a thread; a sibling may be idle.
            self._acceptor.hold("threads", take=False)

    def _start(self, item: T) -> None:
        if self._idle_cells and self._running >= self._count - len(self._idle_cells):
            self._start_thread()
        self._running += 1
        self._queue.put(item)

    def _start_thread(self) -> None:
        cell = self._idle_cells[-1]
        try:
            threading.Thread(
                target=self._serve, args=(cell,), name="prefork-application", daemon=True
            ).start()
        except RuntimeError:
            # The system has none for us now: one of those that there are will take the item.
            if len(self._idle_cells) == self._count:
                raise
        else:
            self._idle_cells.pop()

    def _serve(self, cell: BindableCell) -> None:
        cell.bind()
        take, post = self._queue.get, self._loop.post
        while True:
            item = take()
            self._work(item, cell)
            post(partial(self._finish, item))

    def _finish(self, item: T) -> None:
        self._running -= 1
        self._done(item)
        while self.waiting and not self.full:
            following = self.waiting.popleft()
            if self._begin(following):
                self._start(following)
        if not self.full:
            self._acceptor.release("threads")
        else:
            # The requests of our own connections may keep all threads busy for ever. If a sibling were idle it
            # would have taken what waits, so now and then one new connection is to queue up with them.
            self._before_turn -= 1
            if self._before_turn <= 0:
                self._before_turn = self._running
                self._acceptor.take_despite("threads")
