"""The way from the client: bytes to heads and bodies, as they come; used by a connection in the serve loop.

What is complete goes to ``run``, what cannot be a request to ``refuse``: both are the connection's.
"""

from __future__ import annotations

import select
from socket import MSG_DONTWAIT, socket
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from prefork.http.head import MEMO_BYTES, Head
from prefork.http.refusal import BadRequest
from prefork.http.response import CONTINUE
from prefork.worker.body import IncomingBody
from prefork.worker.connection_state import State
from prefork.worker.exchange import ClientGone, Environ, FileBody, Request, ThreadCell
from prefork.worker.handover import Origin
from prefork.worker.outgoing import Outgoing
from prefork.worker.storage import SpoolFile

if TYPE_CHECKING:
    from prefork.http.head import HeadParser
    from prefork.worker.http_server import HTTPServer

RECEIVE_BYTES = 120 * 1024
"""One call then takes a request with a body of 64 KiB; below malloc's threshold for its own mapping."""

_FIELD_BYTES = 160
"""What a field of a parsed head takes besides its value: two objects, the name and a place in a dict."""

_, _, _IDLE, _HEAD, _BODY, _NEXT, _WAITING, _RUNNING, _, _LINGERING, _ = State


class Incoming(Outgoing):
    """A client's connection to the web server, as far as it receives."""

    __slots__ = (
        "base",
        "body",
        "cell",
        "fd",
        "head_cost_bytes",
        "keep",
        "origin",
        "parser",
        "raw",
        "request",
        "server",
        "state",
        "unfinished_ns",
        "watched",
        "whole",
    )

    is_private = False
    """Does only this process know how to go on with it?"""

    def __init__(
        self, server: HTTPServer, sock: socket, origin: Origin, base: Environ, parser: HeadParser
    ) -> None:
        super().__init__(sock, server.storage, server.response_memory_bytes, server.sending.timeout_s)
        self.server = server
        self.origin = origin
        self.base = base
        self.parser = parser
        """Shared by all connections of clients that are believed as much as this one."""
        self.fd = sock.fileno()
        self.state = _IDLE
        self.raw = b""
        """Received and not yet used: an incomplete head, or what was pipelined. Set by ``hold``, which counts it."""
        self.request: Request | None = None
        self.body: IncomingBody | None = None
        self.whole = b""
        """While WAITING: the request and what follows, from its first byte, if it came at once."""
        self.head_cost_bytes = 0
        """Counted for a complete head, while its body is not complete or it waits for a thread."""
        self.watched = False
        self.cell: ThreadCell = server.main_cell
        """The scoreboard cell of the thread that owns the connection while it is RUNNING."""
        self.keep = False
        """Is the connection to live on after the response that is under way?"""
        self.unfinished_ns = 0
        """When the exchange began that the application is done with, and that is to be counted when it is over."""

    def on_readable(self, events: int) -> None:
        """Receive once. Called by the loop, perhaps without cause."""
        if self.state is _RUNNING or self.state is _WAITING:
            self.unwatch()
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

    def _received(self, data: bytes) -> None:
        """Use what the socket gave; with TLS it is to be decrypted first."""
        self.server.received[0] += len(data)
        if self.body is not None:
            self._receive_body(data)
        elif self.state is not _LINGERING:
            self.receive_head(data)

    def receive_head(self, data: bytes) -> None:
        server = self.server
        parser = self.parser
        known_bytes = len(self.raw)
        if known_bytes:
            data = self.raw + data
        if self.state is _IDLE:
            server.keep_alive.stop(self, None)
            if server.is_leaving:
                server.quiet.stop(self, None)
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
                    self.hold(b"")
                self.begin_body(head, data, end)
                if head.expect_continue and not rest and self.state is _BODY:
                    self._invite()
                return
            if rest or known_bytes:
                self.hold(rest)
        except BadRequest as refusal:
            server.head.stop(self, None)
            self.refuse(refusal.status, refusal.reason, data)
            return
        self.run(head, b"", data)

    def _await_head(self, raw: bytes) -> None:
        self.hold(raw)
        if self.server.queueing is not None:
            self.server.queueing.forget(self)
        if self.state is not _HEAD:
            self.state = _HEAD
            self.begin_exchange()
            self.watch(self.on_readable)
            self.server.head.start(self)

    def begin_body(self, head: Head, data: bytes, end: int, spool: SpoolFile | None = None) -> None:
        """``data`` holds the head up to ``end``, and what came after it. ``spool``: what came before that."""
        server = self.server
        body = self.body = IncomingBody(head, server.limits, server.storage, server.body_memory_bytes, spool)
        if spool is not None:
            body.head_bytes = data[:end]
        if body.feed(data[end:]):
            if body.rest:
                self.hold(body.rest)
            will_wait = self._will_wait()
            if will_wait:
                body.head_bytes = data[:end]
            # What waits has been put away, and can be packed from there, unless it was chunked.
            self.run(head, body.take(will_wait), b"" if spool or (will_wait and not head.chunked) else data)
            return
        self.count_head(head, end)
        body.head_bytes = data[:end]
        if server.queueing is not None:
            server.queueing.forget(self)
        self.state = _BODY
        self.begin_exchange()
        self.watch(self.on_readable)
        self.server.body.start(self)

    def begin_exchange(self) -> None:
        """The request does not get to the application at once: it began with what was read now, if not before."""
        self.server.has_census = True
        if self.began_ns <= 0:
            self.began_ns = monotonic_ns()

    def end_application(self, start_ns: int) -> None:
        """For its part as a ``Writer``."""
        self.unfinished_ns = start_ns if self.began_ns < 0 else self.began_ns
        self.began_ns = 0

    def end_exchange(self) -> None:
        """All of the response is in the kernel, or the client is gone."""
        if self.unfinished_ns:
            self.server.cell.add_exchange(monotonic_ns() - self.unfinished_ns)
            self.unfinished_ns = 0

    def _will_wait(self) -> bool:
        """Will a request that is complete now wait for a thread?"""
        threads = self.server.threads
        return threads is not None and threads.full

    def _invite(self) -> None:
        """Tell a client to send the body for which it waits to be asked."""
        try:
            self.write(CONTINUE)
        except ClientGone:
            self.close()

    def _receive_body(self, data: bytes) -> None:
        body = self.body
        assert body is not None
        try:
            if not body.feed(data):
                self.server.body.start(self)
                return
            if body.rest:
                self.hold(body.rest)
            whole = body.take(self._will_wait())
        except BadRequest as refusal:
            self.server.body.stop(self, None)
            self.refuse(refusal.status, refusal.reason, body.head.request_line)
            return
        self.server.body.stop(self, None)
        self.run(body.head, whole, b"")

    def count_head(self, head: Head, raw_bytes: int) -> None:
        """Count a head that is kept, and ``raw_bytes`` that are kept with it, until ``uncount_head``.

        Raises ``BadRequest`` if there is no room.
        """
        environ = head.environ
        cost_bytes = raw_bytes + sum(map(len, environ.values())) + _FIELD_BYTES * len(environ)
        if not self.storage.take_received(cost_bytes):
            raise BadRequest(503, "no room for another request at the moment")
        self.head_cost_bytes = cost_bytes

    def uncount_head(self) -> None:
        if self.head_cost_bytes:
            self.storage.free_memory(self.head_cost_bytes)
            self.head_cost_bytes = 0

    def drop_body(self) -> None:
        """Free the body: the application has had it, or never will."""
        self.uncount_head()
        if self.body is not None:
            self.body.close()
            self.body = None
            if self.request is not None:
                self.request.body = b""

    def hold(self, raw: bytes) -> None:
        """Keep bytes for later in place of those kept now, counted. Raises ``BadRequest`` if there is no room."""
        more = len(raw) - len(self.raw)
        if more > 0:
            if not self.storage.take_received(more):
                raise BadRequest(503, "no room for the bytes of another request at the moment")
        elif more:
            self.storage.free_memory(-more)
        self.raw = raw

    def run(self, head: Head, body: bytes | FileBody, received: bytes) -> None:
        """Answer a complete request. ``received``: all there is from its first byte on; empty if it came in parts."""
        raise NotImplementedError

    def refuse(self, status: int, reason: str, received: bytes, cause: str = "") -> None:
        """Answer without the application, then close. ``received``: the request, from its first byte. ``cause``: one
        of ``figures.REFUSALS``, if the status does not tell which."""
        raise NotImplementedError

    def close(self) -> None:
        """Close at once."""
        raise NotImplementedError

    # The epoll. On the fast path nothing of this is called.

    def watch(self, handler: Any, events: int = select.EPOLLIN) -> None:
        loop = self.server.loop
        if not self.watched:
            loop.watch(self.fd, handler, events)
            self.watched = True
        elif loop.handlers[self.fd] != handler:
            loop.handlers[self.fd] = handler
            loop.epoll.modify(self.fd, events)

    def unwatch(self) -> None:
        if self.watched:
            self.watched = False
            self.server.loop.unwatch(self.fd)
