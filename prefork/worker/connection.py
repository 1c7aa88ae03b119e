"""One client connection, from accept to close; a state machine in a worker.

Its states, and which thread may touch it in which of them, are in ``connection_state``.
"""

from __future__ import annotations

import select
from functools import partial
from socket import MSG_DONTWAIT, MSG_PEEK
from types import MappingProxyType
from typing import Any

from prefork.http.head import Head
from prefork.http.refusal import BadRequest
from prefork.worker.connection_state import State
from prefork.worker.exchange import ClientGone, FileBody, Request
from prefork.worker.handover import RAW_BYTES
from prefork.worker.health import Health
from prefork.worker.incoming import Incoming

_NO_HEAD = Head("", "", "", "", (1, 1), MappingProxyType({}), 0, False, True, False, b"")
"""Of the request of a parked connection: a real one may be of 32 KiB."""

_LAST_HEAD = _NO_HEAD._replace(keep_alive=False)

_, _, _IDLE, _HEAD, _BODY, _NEXT, _WAITING, _RUNNING, _FLUSHING, _LINGERING, _CLOSED = State


class Connection(Incoming):
    """A client's connection to the web server."""

    __slots__ = ()

    @property
    def address(self) -> Any:
        """The client's."""
        return self.origin.client

    def start(self) -> None:
        """Begin with the connection just accepted: often its first request is already here."""
        self.on_readable(0)
        if self.state is _IDLE and not self.watched:
            self._park()

    def wait(self) -> None:
        """Begin as one that was idle: it has its turn after others."""
        self._park()

    def finish(self) -> None:
        """Take the connection back after a response, to ``keep`` it or to close it once all is sent."""
        if self.loan is not None:
            self.take_back()
        if self.body is not None:
            self.drop_body()
        if self.unfinished_ns and self.output is None:
            self.end_exchange()
        if self.gone:
            self.close()
        elif self.output is not None:
            self.state = _FLUSHING
            self.server.has_census = True
            if self.request is not None:
                self.request.head = _NO_HEAD if self.request.head.keep_alive else _LAST_HEAD
            self.watch(self._on_writable, select.EPOLLOUT)
            self.server.sending.start(self)
        elif not self.keep:
            self._end()
        elif self.raw:
            self.state = _NEXT
            self.server.loop.soon.append(self._next)
        else:
            self._park()
        if self.server.is_leaving:
            self.server.pass_on(self)

    def refuse(self, status: int, reason: str, received: bytes, cause: str = "") -> None:
        server = self.server
        self.hold(b"")
        server.complaints.note_refusal(self, status, reason, cause)
        try:
            self.write(server.gateway.refuse(status, reason, received, self.base))
        except ClientGone:
            pass
        self.keep = False
        self.finish()

    def close(self) -> None:
        """Close at once; with unsent output or unread input the client may see a reset."""
        if self.state is _CLOSED:
            return
        self.unwatch()
        self.server.forget(self)
        self.state = _CLOSED
        if self.unfinished_ns:
            self.end_exchange()
        self.drop_body()
        self.request = None
        self.whole = b""
        if self.raw:
            self.hold(b"")
        if self.output is not None:
            self.drop_output()
        self.sock.close()

    # What is asked of it when it goes to another worker, or comes from one; see ``sharing``.

    def pause(self) -> None:
        """Be told of nothing by the loop: another process may be, soon."""
        self.unwatch()

    def go_on(self) -> None:
        """Be told again: the connection has stayed."""
        if self.state is not _WAITING:
            self.watch(self.on_readable)

    def shorten(self, due: float) -> None:
        """Have the present deadline end at ``due`` if that is earlier."""
        server = self.server
        for state, queue in ((_IDLE, server.keep_alive), (_HEAD, server.head), (_BODY, server.body)):
            if self.state is state and self in queue.entries:
                queue.start_at(self, due)

    def attend(self, events: int) -> bool:
        """Do what can be done without the application, which the main thread is in; called by the steward.

        Returns whether there may be a request for another worker.
        """
        state = self.state
        if state is _FLUSHING:
            self._on_writable(events)
        elif state is _LINGERING:
            self.on_readable(events)
        elif not self.is_private and (state is _IDLE or state is _HEAD or state is _BODY):
            try:
                gone = not self.sock.recv(1, MSG_DONTWAIT | MSG_PEEK)
            except BlockingIOError:
                return False
            except OSError:
                gone = True
            if not gone:
                return True
            self.close()
        return False

    def announce_end(self) -> None:
        """Have the response that is under way announce that the connection will close."""
        if self.state in (_RUNNING, _WAITING) and self.request is not None and not self.raw:
            self.request.keep_alive = False

    def expect_end(self) -> None:
        """Wait only a moment for another request, that may be on its way."""
        self.server.keep_alive.stop(self, None)
        self.server.quiet.start(self)

    # What the deadlines call. Each looks once more: bytes may have come while the loop was in the application.

    def expire_idle(self) -> None:
        server = self.server
        self.on_readable(0)
        if self.state is _IDLE and self not in server.keep_alive.entries and self not in server.quiet.entries:
            self.close()

    def expire_head(self) -> None:
        self.on_readable(0)
        if self.state is _HEAD and self not in self.server.head.entries:
            self.refuse(408, "the head of the request did not arrive in time", self.raw, "head-timeout")

    def expire_body(self) -> None:
        self.on_readable(0)
        if self.state is _BODY and self not in self.server.body.entries:
            assert self.body is not None
            line = self.body.head.request_line
            self.refuse(408, "the body of the request stopped arriving", line, "body-timeout")

    def expire_sending(self) -> None:
        self._on_writable(0)
        if self.state is _FLUSHING and self not in self.server.sending.entries:
            self.cut_off(f"it took nothing for {self.send_timeout_s:g} s")
            self.close()

    # For its part as an ``Outgoing``.

    def send_meanwhile(self) -> None:
        if self.output is not None and self.loan is None and self.state is _RUNNING:
            self.server.background.lend(self)

    def cut_off(self, reason: str) -> ClientGone:
        self.server.loop.post(partial(self.server.complaints.note_slow_reader, self.address, reason))
        return super().cut_off(reason)

    def holds_worker(self) -> bool:
        threads = self.server.threads
        return threads is None or threads.full or self.state is not _RUNNING

    # Handing over to the application, and what comes after it.

    def run(self, head: Head, body: bytes | FileBody, received: bytes) -> None:
        """Have the application answer. ``received``: all there is from the first byte on; empty if it came in parts."""
        server = self.server
        # Before a connection is closed, what the client has pipelined is answered.
        keep = (server.keeps_private if self.is_private else server.keeps_connections) or bool(self.raw)
        if server.screens and self._is_screened(head, keep and head.keep_alive):
            return
        request = self.request
        if request is None:
            self.request = Request(head, body, self.base, keep)
        else:
            request.head = head
            request.body = body
            request.keep_alive = keep
        threads = server.threads
        if threads is None:
            self.state = _RUNNING
            server.work(self, server.main_cell)
            self.finish()
        else:
            if not threads.full:
                self.state = _RUNNING
            elif not self._may_wait(head, received):
                return
            else:
                self.state = _WAITING
                self.begin_exchange()
                if server.sharing is not None:
                    server.sharing.thread_awaited()
            try:
                threads.submit(self)
            except RuntimeError:
                self.state = _IDLE  # nobody runs it
                raise
            if server.rounds is not None:
                server.rounds.begin()

    def _may_wait(self, head: Head, received: bytes) -> bool:
        """Keep, and count, what there is of a request that waits for a thread; refuse it if there is no room."""
        whole = received if len(received) <= RAW_BYTES else b""
        if not self.head_cost_bytes:
            try:
                self.count_head(head, len(whole))
            except BadRequest as refusal:
                self.refuse(refusal.status, refusal.reason, head.request_line)
                return False
        self.whole = whole
        return True

    def begin(self) -> bool:
        """Run the request that has waited for a thread; return False if the connection is no longer here."""
        if self.state is not _WAITING:
            return False
        self.state = _RUNNING
        self.whole = b""
        self.uncount_head()
        return True

    def _is_screened(self, head: Head, keep: bool) -> bool:
        """Answer a request here if it does not get to the application; return whether that is so."""
        health, queueing = self.server.health, self.server.queueing
        if health is not None and health.asks(head):
            self._tell_health(health, head, keep)
            return True
        if queueing is not None and (waited_s := queueing.excess_s(self, head)) is not None:
            reason = f"the request has waited for {waited_s:.1f} s for a worker"
            self.refuse(503, reason, head.request_line, "queue-timeout")
            return True
        return False

    def _tell_health(self, health: Health, head: Head, keep: bool) -> None:
        """Answer a health check, without the application."""
        server = self.server
        try:
            self.write(health.answer(head, server.closing, keep, server.gateway.server_lines(None)))
        except ClientGone:
            pass
        self.keep = keep
        self.began_ns = 0
        self.finish()

    def _park(self) -> None:
        self.state = _IDLE
        if self.request is not None:
            self.request.head = _NO_HEAD
        if not self.watched:
            self.watch(self.on_readable)
        self.server.keep_alive.start(self)
        if self.is_private and self.server.is_leaving:
            self.expect_end()

    def _next(self) -> None:
        if self.state is _NEXT:
            self.state = _IDLE
            raw = self.raw
            self.hold(b"")
            self.receive_head(raw)

    def _on_writable(self, events: int) -> None:
        if self.state is not _FLUSHING:
            return
        try:
            progress = self.flush()
        except ClientGone:
            self.close()
            return
        if self.output is not None:
            if progress:
                self.server.sending.start(self)
            return
        self.server.sending.stop(self, None)
        self.watch(self.on_readable)
        self.finish()

    def _end(self) -> None:
        request = self.request
        if self.end_output(request is not None and not request.head.keep_alive and not self.raw):
            self.close()
            return
        self.state = _LINGERING
        self.server.has_census = True
        self.hold(b"")
        self.request = None
        self.watch(self.on_readable)
        self.server.linger.start(self)
