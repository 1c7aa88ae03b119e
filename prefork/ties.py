"""Ties: what binds a mold or worker to the server, and is cut in every process that its application forks.

A fork without exec (``multiprocessing``, a daemonizing library) would hold listeners and channel after its
parent is gone, so that an address stays in use and clients wait for an end-of-file; and it would answer signals
as if it were the worker, so that ``Process.terminate()`` ended nothing. Runs in molds and workers.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prefork.child import QUIET


class Ties:
    """Make one early in a process, for good.

    ``disown`` is called in the child and returns the descriptors that are not its own. They are closed by number:
    Python objects that own one must live as long as the child.
    """

    def __init__(self, disown: Callable[[], Iterable[int]]) -> None:
        self.disown = disown
        self._kept = False
        self._mask = threading.local()
        os.register_at_fork(before=self._block, after_in_parent=self._unblock, after_in_child=self._cut)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While the block runs forks are our own and inherit everything; in them these ties end."""
        self._kept = True
        try:
            yield
        finally:
            self._kept = False

    def _block(self) -> None:
        """Hold signals back, so that none reaches the child while it still answers like its parent."""
        self._mask.saved = signal.pthread_sigmask(signal.SIG_BLOCK, QUIET)

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask.saved)

    def _cut(self) -> None:
        if self._kept:
            self._unblock()
            return
        self._kept = True  # its own children have nothing left to cut
        for fd in self.disown():
            try:
                os.close(fd)
            except OSError:
                pass  # the application has closed it
        for number in QUIET:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._unblock()
