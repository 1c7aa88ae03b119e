"""What a worker does at the deadline of a request: 504, hand over everything else, leave.

Runs in a worker, in whoever has the baton: the steward while the main thread is stuck in the application, or the
loop beside application threads. It uses no lock that application code may hold. If it hangs all the same, the
master ends the worker a moment later.

The first byte of the response and the 504 compete. The thread of the application sets ``response.head_sent`` and
*then* reads ``response.late``; the late side sets ``response.late`` and *then* reads ``head_sent``. So at least one
sees the other, and the lock in ``Late`` decides between two that do: an ordinary response pays one look at an
attribute.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING

from prefork.worker.connection import Connection
from prefork.worker.connection_state import State
from prefork.worker.deadlines import Deadlines
from prefork.worker.exchange import ClientGone, WatchedCell
from prefork.worker.peers import shown_address
from prefork.worker.request_hooks import Late as LateHook

if TYPE_CHECKING:
    from prefork.worker.http_server import HTTPServer
    from prefork.worker.response import Response

EXIT_STATUS = 7
"""Of a worker that ends itself for a late request; not one of the master's."""

HAND_OVER_S = 0.5
"""How long it may take to be rid of the other connections: before the master loses patience."""

CHECK_S = 0.1
"""How often a worker with threads looks whether only late requests are left."""

UNREAD_BYTES = 256 * 1024


class Late:
    """Decides between the response of the application and the 504, for one late request."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self.has_answered = False
        """Was the 504 first?"""

    def may_send(self) -> bool:
        """Return whether the application's response may go out; called after ``head_sent`` was set."""
        with self._lock:
            return not self.has_answered

    def answer(self, response: Response, send: Callable[[], None]) -> bool:
        """Have the 504 sent unless the response was first; return whether it was; called after ``late`` was set."""
        with self._lock:
            self.has_answered = not response.head_sent
            if self.has_answered:
                send()
            return self.has_answered


TellMaster = Callable[[str, float], None]
"""Tells the master of a late request: its first line, and how many seconds it has been running."""


class LateRequests:
    """Ends ``server`` for the sake of a late request; after ``graceful_s`` also if others still run."""

    def __init__(
        self,
        server: HTTPServer,
        tell_master: TellMaster,
        hook: LateHook | None,
        graceful_s: float,
        before_exit: Callable[[], None],
    ) -> None:
        """``before_exit`` is called when the process is about to end without further ceremony."""
        self._hook = hook
        self._hooked: threading.Thread | None = None
        self._server = server
        self._tell_master = tell_master
        self._before_exit = before_exit
        self._connections: set[Connection] = set()
        self._check: Deadlines[None] = server.loop.deadlines(CHECK_S, lambda _: self._leave_if_alone())
        self._graceful_s = graceful_s
        self._leave_at = 0.0

    def slow(self, response: Response, elapsed_ns: int, stack: str) -> None:
        """Report a slow request."""
        self._report(response, elapsed_ns, stack, "request-slow", "is slow: it has been running")

    def overdue(self, cell: WatchedCell, response: Response, start_ns: int, stack: str) -> None:
        """Answer a late request and end the worker; with threads when the others are done."""
        server = self._server
        connection = response.writer
        assert isinstance(connection, Connection)
        cell.count_late(start_ns)
        late = response.late = Late()
        answered = late.answer(response, lambda: self._answer(connection, response, start_ns))
        elapsed_ns = monotonic_ns() - start_ns
        outcome = "was answered 504" if answered else "its response had begun"
        self._report(
            response,
            elapsed_ns,
            stack,
            "request-deadline",
            f"passed its deadline: {outcome}, it has been running",
        )
        line = response.request.head.request_line.decode("latin-1")
        self._tell_master(line, elapsed_ns / 1e9)
        status = 504 if answered else response.encoded.code if response.encoded else 500
        if server.threads is not None:
            cell.end(start_ns, status)
            self._drain(connection)
            if self._hook is not None:  # which may take longer than the others have time
                arguments = (response.environ, stack, elapsed_ns)
                self._hooked = threading.Thread(target=self._hook, args=arguments, daemon=True)
                self._hooked.start()
            return
        self._leave_incomplete(connection)
        self._hand_over()
        if self._hook is not None:
            self._hook(response.environ, stack, elapsed_ns)
        self._finish_readers(cell, start_ns, status)
        began_ns = connection.began_ns
        cell.leave(response.request.head.method, status, start_ns, response.sent_bytes, began_ns != 0)
        if began_ns:
            connection.end_application(start_ns)
            connection.end_exchange()
        self._before_exit()
        os._exit(EXIT_STATUS)

    def _answer(self, connection: Connection, response: Response, start_ns: int) -> None:
        try:
            connection.write(self._server.gateway.answer_late(response, start_ns))
            connection.end_output(False)
            # A close on unread bytes would reset the answer away.
            connection.drop_unread(UNREAD_BYTES)
        except ClientGone:
            pass
        connection.gone = True

    def _hand_over(self) -> None:
        sharing = self._server.sharing
        if sharing is not None and not self._server.closing:
            sharing.leave_at_once(monotonic() + HAND_OVER_S)

    def _finish_readers(self, cell: WatchedCell, start_ns: int, status: int) -> None:
        """Stay for clients that still read responses of earlier requests; the successor is here meanwhile."""
        sending = self._server.sending.entries
        if self._server.sharing is not None and sending:
            cell.end(start_ns, status)
            until = monotonic() + self._graceful_s
            self._server.sharing.attend_while(lambda: bool(sending) and monotonic() < until)

    def _drain(self, connection: Connection) -> None:
        """Have others take over; the loop ends when all that is left are late requests."""
        server = self._server
        if not self._leave_at:
            self._leave_at = monotonic() + self._graceful_s
            self._check.start(None)
            if not server.draining and not server.closing:
                server.drain()
        self._connections.add(connection)

    def _leave_if_alone(self) -> None:
        server = self._server
        still = [connection for connection in self._connections if connection.state is State.RUNNING]
        is_alone = server.open_connections <= len(still) and not (self._hooked and self._hooked.is_alive())
        if server.is_ending and (is_alone or monotonic() >= self._leave_at):
            for connection in still:
                self._leave_incomplete(connection)
            server.quit()
        else:
            self._check.start(None)

    def _leave_incomplete(self, connection: Connection) -> None:
        """See that half a response does not look complete when the process ends."""
        response = connection.cell.current
        if not connection.gone and (connection.output or response is None or not response.is_complete):
            connection.reset_on_close()

    def _report(self, response: Response, elapsed_ns: int, stack: str, event: str, what: str) -> None:
        connection, head = response.writer, response.request.head
        assert isinstance(connection, Connection)
        elapsed_s = elapsed_ns / 1e9
        client = shown_address(connection.address)
        line = head.request_line.decode("latin-1")
        log = self._server.log
        write = log.warning if event == "request-slow" else log.error
        write(
            event,
            f"{line!r} {what} for {elapsed_s:.1f} s, from {client}, id {response.request_id}",
            method=head.method,
            target=head.target,
            elapsed_s=round(elapsed_s, 3),
            client=client,
            request_id=response.request_id,
            traceback=stack,
        )
