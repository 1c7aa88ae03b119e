"""What a mold, a worker and the admin process have in common: how a forked child of prefork begins.

Runs in all of them.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from prefork import last_words
from prefork.errors import ExitStatus
from prefork.heritage import BaseHeritage
from prefork.process import set_title, signal_when_parent_ends

# Signals that are the master's business, though a terminal or `kill -- -GROUP` sends them to all.
# They get a handler that does nothing and are not ignored: what is ignored stays so in the programs that
# an application starts, while a handler is reset by exec.
QUIET = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def begin(heritage: BaseHeritage, title: str) -> None:
    """Reset what was inherited: signals, the title of the process."""
    signal.set_wakeup_fd(-1)
    for number in QUIET:
        signal.signal(number, _nothing)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    set_title(title)
    last_words.write_to(heritage.last_words)


def on_term(callback: Callable[[], None]) -> None:
    """Call ``callback`` when SIGTERM comes; it must not raise."""

    def handle(number: int, frame: FrameType | None) -> None:
        callback()

    signal.signal(signal.SIGTERM, handle)


@contextmanager
def tied_to_master(lifeline: int) -> Iterator[None]:
    """End this process if the master dies while the block runs, which cannot look at the lifeline itself.

    The kernel sends SIGHUP when the parent ends. That may be the intermediate of the fork, and a hangup may
    come from a terminal, so the lifeline decides.
    """
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)

    def end_without_master(number: int, frame: FrameType | None) -> None:
        if poll.poll(0):
            os._exit(ExitStatus.OK)

    signal.signal(signal.SIGHUP, end_without_master)
    signal_when_parent_ends(signal.SIGHUP)
    end_without_master(signal.SIGHUP, None)  # it may have died before
    try:
        yield
    finally:
        signal_when_parent_ends(0)
        signal.signal(signal.SIGHUP, _nothing)
