"""Sending on while the application works: what the socket did not take of a block goes out before the next is there.

Runs in a worker, in a thread of its own that is started when it is first needed. PEP 3333 asks for it ("Buffering and
Streaming"). What is kept for a client has one owner at a time: the thread that runs the application *lends* it to
this thread when it goes back into the application, and takes it back before it touches it again. So nothing else of
a connection needs a lock, and a response that the socket takes at once costs nothing here.
"""

from __future__ import annotations

import _thread
import select
import threading
import traceback
from typing import TYPE_CHECKING

from prefork.worker.exchange import ClientGone

if TYPE_CHECKING:
    from prefork.worker.outgoing import Outgoing
    from prefork.worker.storage import Log


class BackgroundSender:
    """The thread, and what is lent to it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.epoll: select.epoll | None = None
        """None until something was lent."""
        self.loans: dict[int, Loan] = {}
        """By descriptor; each is in ``epoll``, too."""
        self._starting = threading.Lock()
        self._is_fork = False

    def lend(self, output: Outgoing) -> None:
        """Send what ``output`` keeps until its ``loan`` is ended."""
        if not self._is_fork:
            try:
                Loan(self, self.epoll or self._start(), output)
            except (OSError, RuntimeError):
                pass  # There can be no thread, or no descriptor: it waits for the next block.

    def disown(self) -> list[int]:
        """Return our descriptors, in a process that the application has forked, where there is no thread.

        What is lent is sent by the parent, whose thread may have been halfway through it: here it is gone.
        """
        self._is_fork = True
        for loan in self.loans.values():
            loan.forsake()
        return [] if self.epoll is None else [self.epoll.fileno()]

    def _start(self) -> select.epoll:
        with self._starting:
            if self.epoll is None:
                epoll = select.epoll()
                threading.Thread(
                    target=self._run, args=(epoll,), name="prefork-background", daemon=True
                ).start()
                self.epoll = epoll
            return self.epoll

    def _run(self, epoll: select.epoll) -> None:
        while True:
            for fd, _ in epoll.poll():
                loan = self.loans.get(fd)
                if loan is not None:
                    loan.send()


class Loan:
    """The right to touch what one connection keeps. Each is used for once: the owner ``end``s it."""

    __slots__ = ("_epoll", "_fd", "_output", "_sender", "_turn")

    def __init__(self, sender: BackgroundSender, epoll: select.epoll, output: Outgoing) -> None:
        self._turn = _thread.allocate_lock()
        """Held by the sender while it sends, and by the owner from the end on, for ever: an event that is older
        than the end does no harm."""
        self._output = output
        self._sender = sender
        self._epoll = epoll
        self._fd = output.sock.fileno()
        output.loan = sender.loans[self._fd] = self
        try:
            epoll.register(self._fd, select.EPOLLOUT)
        except OSError:
            del sender.loans[self._fd]
            output.loan = None
            raise

    def end(self) -> None:
        """Have it back. Waits at most until the sender's turn of ``pending.TURN_BYTES`` is over."""
        self._forget()  # First: there is no other turn, even if the client takes all at once.
        self._turn.acquire()

    def send(self) -> None:
        """Send what the socket takes; called by the sender. What fails is known to the owner by ``gone``."""
        if not self._turn.acquire(False):
            return
        output = self._output
        try:
            output.flush()
        except ClientGone:
            pass
        except Exception:
            output.gone = True
            output.drop_output()
            self._sender.log.error(
                "internal-error", "sending in the background failed", traceback=traceback.format_exc()
            )
        finally:
            if output.output is None:
                self._forget()
            self._turn.release()

    def forsake(self) -> None:
        """Never send it in this process."""
        self._output.gone = True
        self._output.output = None
        self._output.loan = None

    def _forget(self) -> None:
        """Have it reported no more; both may call it, and one of them does it."""
        if self._sender.loans.pop(self._fd, None) is not None:
            try:
                self._epoll.unregister(self._fd)
            except OSError:
                pass  # The application has closed it.
