"""Taking turns: how threads and forked children share a buffer without a lock that anyone could wait for.

Used in every process.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Turn:
    """What one thread at a time may have: take it or leave it.

    Waiting is not possible, so neither a signal handler that interrupts its owner nor a child that is forked
    meanwhile can hang. One operation on a list is atomic.
    """

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free = [True]

    def take(self) -> bool:
        """Return whether it is the caller's turn; then ``give_back`` must follow."""
        try:
            return self._free.pop()
        except IndexError:
            return False

    def give_back(self) -> None:
        self._free.append(True)


class ForgetsAfterFork(Protocol):
    """Holds what only the process that made it may write out."""

    def after_fork(self) -> None: ...


def call_after_fork(holder: ForgetsAfterFork) -> None:
    """Call ``holder.after_fork()`` in every child, also in those that the application forks."""
    reference = weakref.ref(holder)

    def in_child() -> None:
        if (alive := reference()) is not None:
            alive.after_fork()

    os.register_at_fork(after_in_child=in_child)
