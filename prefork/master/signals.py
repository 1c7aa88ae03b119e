"""Signals of the master: handlers only mark that a signal came; the loop decides.

The one home of the master's signal handlers. The handlers do nothing: the interpreter writes the number of
each signal into a pipe (``signal.set_wakeup_fd``), which the loop watches. So no signal is handled in the
middle of anything.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WATCHED = (
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)

STOPPING = frozenset({signal.SIGTERM, signal.SIGQUIT, signal.SIGINT})


def _only_wake(number: int, frame: FrameType | None) -> None:
    """Do nothing; a handler must exist so that the interpreter writes to the pipe."""


@contextmanager
def all_blocked() -> Iterator[None]:
    """Hold all signals back while the block runs, and across an exec in it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def unblock_all() -> None:
    """Let come what was held back, across an exec, too."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class SignalPipe:
    """The signals that came, in order. ``fileno()`` may be polled."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # When the pipe is full more of the same signals are lost, and 64 KiB of signals were not.
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in WATCHED:
            signal.signal(number, _only_wake)

    def fileno(self) -> int:
        return self._read_fd

    def received(self) -> list[int]:
        """Return the numbers of the signals that came since the last call, each once.

        Signals that were pending together come in no order that means anything, so those that stop the server
        are put first: a reload that was asked for before a stop is of no use after it.
        """
        try:
            numbers = dict.fromkeys(os.read(self._read_fd, 65536))
        except BlockingIOError:
            return []
        return sorted(numbers, key=lambda number: number not in STOPPING)
