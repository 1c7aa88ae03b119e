"""One client connection, from accept to close; a state machine in a worker.

Its states, and which thread may touch it in which of them, are in ``connection_state``.
"""

from __future__ import annotations

import select
from functools import partial
from socket import MSG_DONTWAIT, socket
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from prefork.http.head import MEMO_BYTES, Head
from prefork.http.refusal import BadRequest
from prefork.http.response import CONTINUE
from prefork.worker.body import IncomingBody
from prefork.worker.connection_state import State
from prefork.worker.exchange import ClientGone, Environ, FileBody, Request, ThreadCell
from prefork.worker.outgoing import Outgoing

if TYPE_CHECKING:
    from prefork.http.head import HeadParser
    from prefork.worker.http_server import HTTPServer

RECEIVE_BYTES = 120 * 1024
"""One call then takes a request with a body of 64 KiB; below malloc's threshold for its own mapping."""

_NO_HEAD = Head("", "", "", "", (1, 1), MappingProxyType({}), 0, False, True, False, b"")
"""Of the request of a parked connection: a real one may be of 32 KiB."""

_, _, _IDLE, _HEAD, _BODY, _NEXT, _RUNNING, _FLUSHING, _LINGERING, _CLOSED = State


class Connection(Outgoing):
    """A client's connection to the web server."""

    __slots__ = (
        "_body",
        "_watched",
        "address",
        "base",
        "cell",
        "fd",
        "keep",
        "parser",
        "raw",
        "request",
        "server",
        "state",
    )

    def __init__(
        self, server: HTTPServer, sock: socket, address: Any, base: Environ, parser: HeadParser
    ) -> None:
        super().__init__(sock, server.storage, server.response_memory_bytes, server.sending.timeout_s)
        self.server = server
        self.address = address
        self.base = base
        self.parser = parser
        """Shared by all connections of clients that are believed as much as this one."""
        self.fd = sock.fileno()
        self.state = _IDLE
        self.raw = b""
        """Received and not yet used: an incomplete head, or what was pipelined. Set by ``_hold``, which counts it."""
        self.request: Request | None = None
        self._body: IncomingBody | None = None
        self._watched = False
        self.cell: ThreadCell = server.main_cell
        """The scoreboard cell of the thread that owns the connection while it is RUNNING."""
        self.keep = False
        """Is the connection to live on after the response that is under way?"""

    def start(self) -> None:
        """Begin with the connection just accepted: often its first request is already here."""
        self.on_readable(0)
        if self.state is _IDLE and not self._watched:
            self._park()

    def on_readable(self, events: int) -> None:
        """Receive once. Called by the loop, perhaps without cause."""
        if self.state is _RUNNING:
            self._unwatch()
            return
        if self.state is _NEXT:
            return
        try:
            data = self.sock.recv(RECEIVE_BYTES, MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            # Nothing complete is waiting, since a complete request is never left unanswered. A half-received
            # one can never be completed. (With TLS, with or without a close_notify: HTTP knows what is complete.)
            self.close()
        else:
            self._received(data)

    def finish(self) -> None:
        """Take the connection back after a response, to ``keep`` it or to close it once all is sent."""
        if self._body is not None:
            self._drop_body()
        if self.gone:
            self.close()
        elif self.output is not None:
            self.state = _FLUSHING
            self._watch(self._on_writable, select.EPOLLOUT)
            self.server.sending.start(self)
        elif not self.keep:
            self._end()
        elif self.raw:
            self.state = _NEXT
            self.server.loop.soon.append(self._next)
        else:
            self._park()

    def refuse(self, status: int, reason: str, received: bytes) -> None:
        """Answer without the application, then close. ``received``: the request, from its first byte."""
        server = self.server
        self._hold(b"")
        server.note_refusal(self, status, reason)
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
        self._unwatch()
        self.server.forget(self)
        self.state = _CLOSED
        if self._body is not None:
            self._drop_body()
        self.request = None
        self._hold(b"")
        self.drop_output()
        self.sock.close()

    # What the deadlines call. Each looks once more: bytes may have come while the loop was in the application.

    def expire_idle(self) -> None:
        self.on_readable(0)
        if self.state is _IDLE and self not in self.server.keep_alive.entries:
            self.close()

    def expire_head(self) -> None:
        self.on_readable(0)
        if self.state is _HEAD and self not in self.server.head.entries:
            self.refuse(408, "the head of the request did not arrive in time", self.raw)

    def expire_body(self) -> None:
        self.on_readable(0)
        if self.state is _BODY and self not in self.server.body.entries:
            assert self._body is not None
            self.refuse(408, "the body of the request stopped arriving", self._body.head.request_line)

    def expire_sending(self) -> None:
        self._on_writable(0)
        if self.state is _FLUSHING and self not in self.server.sending.entries:
            self.cut_off(f"it took nothing for {self.send_timeout_s:g} s")
            self.close()

    # For its part as an ``Outgoing``.

    def cut_off(self, reason: str) -> ClientGone:
        self.server.loop.post(partial(self.server.note_slow_reader, self.address, reason))
        return super().cut_off(reason)

    def holds_worker(self) -> bool:
        threads = self.server.threads
        return threads is None or threads.full or self.state is not _RUNNING

    # Receiving.

    def _received(self, data: bytes) -> None:
        """Use what the socket gave; with TLS it is to be decrypted first."""
        if self._body is not None:
            self._receive_body(data)
        elif self.state is not _LINGERING:
            self._receive_head(data)

    def _receive_head(self, data: bytes) -> None:
        server = self.server
        parser = self.parser
        known_bytes = len(self.raw)
        if known_bytes:
            data = self.raw + data
        if self.state is _IDLE:
            server.keep_alive.stop(self, None)
        end = len(data)
        # What mostly arrives is one whole head without a body, as the last one was.
        head = parser.known(data) if end <= MEMO_BYTES else None
        try:
            if head is None:
                end = parser.find_end(data, known_bytes)
                if end < 0:
                    self._await_head(data)
                    return
                head = parser.parse(data[:end])
            if self.state is _HEAD:
                server.head.stop(self, None)
            rest = data[end:]
            if head.chunked or head.content_length:
                if known_bytes:
                    self._hold(b"")
                self._begin_body(head, rest)
                return
            if rest or known_bytes:
                self._hold(rest)
        except BadRequest as refusal:
            server.head.stop(self, None)
            self.refuse(refusal.status, refusal.reason, data)
            return
        self._run(head, b"")

    def _await_head(self, raw: bytes) -> None:
        self._hold(raw)
        if self.state is not _HEAD:
            self.state = _HEAD
            self._watch(self.on_readable)
            self.server.head.start(self)

    def _begin_body(self, head: Head, received: bytes) -> None:
        server = self.server
        body = self._body = IncomingBody(head, server.limits, server.storage, server.body_memory_bytes)
        if body.feed(received):
            if body.rest:
                self._hold(body.rest)
            self._run(head, body.take(server.threads is not None and server.threads.full))
            return
        self.state = _BODY
        self._watch(self.on_readable)
        self.server.body.start(self)
        if head.expect_continue and not received:
            try:
                self.write(CONTINUE)
            except ClientGone:
                self.close()

    def _receive_body(self, data: bytes) -> None:
        body = self._body
        assert body is not None
        try:
            complete = body.feed(data)
            if body.rest:
                self._hold(body.rest)
        except BadRequest as refusal:
            self.server.body.stop(self, None)
            self.refuse(refusal.status, refusal.reason, body.head.request_line)
            return
        if not complete:
            self.server.body.start(self)
            return
        self.server.body.stop(self, None)
        self._run(body.head, body.take())

    def _drop_body(self) -> None:
        """Free the body: the application has had it, or never will."""
        if self._body is not None:
            self._body.close()
            self._body = None
            if self.request is not None:
                self.request.body = b""

    def _hold(self, raw: bytes) -> None:
        """Keep bytes for later in place of those kept now, counted. Raises ``BadRequest`` if there is no room."""
        more = len(raw) - len(self.raw)
        if more > 0:
            if not self.storage.take_received(more):
                raise BadRequest(503, "no room for the bytes of another request at the moment")
        elif more:
            self.storage.free_memory(-more)
        self.raw = raw

    def _next(self) -> None:
        if self.state is _NEXT:
            self.state = _IDLE
            raw = self.raw
            self._hold(b"")
            self._receive_head(raw)

    # Handing over to the application, and what comes after it.

    def _run(self, head: Head, body: bytes | FileBody) -> None:
        server = self.server
        # Before a connection is closed, what the client has pipelined is answered.
        keep = server.keeps_connections or bool(self.raw)
        if server.health is not None and server.health.asks(head):
            self._tell_health(head, keep and head.keep_alive)
            return
        request = self.request
        if request is None:
            self.request = Request(head, body, self.base, keep)
        else:
            request.head = head
            request.body = body
            request.keep_alive = keep
        self.state = _RUNNING
        if server.threads is None:
            server.work(self, server.main_cell)
            self.finish()
        else:
            server.threads.submit(self)

    def _tell_health(self, head: Head, keep: bool) -> None:
        """Answer a health check, without the application."""
        server = self.server
        assert server.health is not None
        try:
            self.write(server.health.answer(head, server.closing, keep, server.gateway.server_lines(None)))
        except ClientGone:
            pass
        self.keep = keep
        self.finish()

    def _park(self) -> None:
        self.state = _IDLE
        if self.request is not None:
            self.request.head = _NO_HEAD
        if not self._watched:
            self._watch(self.on_readable)
        self.server.keep_alive.start(self)

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
        self._watch(self.on_readable)
        self.finish()

    def _end(self) -> None:
        request = self.request
        if self.end_output(request is not None and not request.head.keep_alive and not self.raw):
            self.close()
            return
        self.state = _LINGERING
        self._hold(b"")
        self.request = None
        self._watch(self.on_readable)
        self.server.linger.start(self)

    # The epoll. On the fast path nothing of this is called.

    def _watch(self, handler: Any, events: int = select.EPOLLIN) -> None:
        loop = self.server.loop
        if not self._watched:
            loop.watch(self.fd, handler, events)
            self._watched = True
        elif loop.handlers[self.fd] != handler:
            loop.handlers[self.fd] = handler
            loop.epoll.modify(self.fd, events)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self.server.loop.unwatch(self.fd)
