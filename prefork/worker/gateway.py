"""The gateway to the application: PEP 3333 in full.

Runs only in a worker, in whichever thread serves the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from email.utils import formatdate
from io import BytesIO
from time import time
from typing import Any

from prefork.http.response import EncodedHead, HeadEncoder, connection_line, own_response
from prefork.http.sender import REQUEST_ID_KEY
from prefork.http.target import readable_line
from prefork.log.access import AccessLog
from prefork.log.access_format import AccessEntry
from prefork.log.log import Log
from prefork.log.stream import ErrorStream
from prefork.tracebacks import application_traceback
from prefork.worker.environ import base_environ, connection_environ
from prefork.worker.exchange import ClientGone, Environ, Request, ThreadCell, Writer
from prefork.worker.request_id import request_ids
from prefork.worker.response import Response

Application = Callable[[Environ, Any], Iterable[bytes]]


class Gateway:
    """Runs the application and frames what it answers; one for all threads of a worker."""

    def __init__(
        self,
        app: Application,
        *,
        log: Log,
        access: AccessLog | None = None,
        multithread: bool = False,
        root_path: str = "",
        server_header: str | None = "prefork",
        responds_with_id: bool = False,
        deadline_s: float = 0.0,
        slow_s: float = 0.0,
    ) -> None:
        """``deadline_s`` and ``slow_s`` are those of each request, 0 for none. Make it after the fork."""
        self.app = app
        self.log = log
        self._deadline_ns = int(deadline_s * 1e9)
        self._slow_ns = int(slow_s * 1e9)
        self._access = access
        self.encoder = HeadEncoder()
        self.responds_with_id = responds_with_id
        self._request_ids = request_ids()
        self._base = base_environ(ErrorStream(log), root_path, multithread)
        self._root_path: str = self._base["SCRIPT_NAME"]
        self._server_line = f"Server: {server_header}\r\n".encode("latin-1") if server_header else b""
        self._stamp = (0, b"", b"")

    def connection_environ(
        self, server_name: str, server_port: str, remote_addr: str, remote_port: str, scheme: str = "http"
    ) -> Environ:
        """Return the environ that all requests of one connection share. Empty strings: not known."""
        return connection_environ(self._base, server_name, server_port, remote_addr, remote_port, scheme)

    def respond(self, request: Request, writer: Writer, cell: ThreadCell) -> bool:
        """Run the application for ``request``; return whether the connection may be kept.

        Never raises: whatever the application does is logged and answered, or the connection is cut.
        """
        head = request.head
        environ = request.base.copy()
        environ[REQUEST_ID_KEY] = next(self._request_ids)
        environ.update(head.environ)  # a proxy may have told another id
        given = request.body
        environ["wsgi.input"] = BytesIO(given) if isinstance(given, bytes) else given.reader()
        if head.chunked:
            environ["CONTENT_LENGTH"] = str(len(given))
        # A root path that a proxy has told is not in the path.
        if self._root_path and "SCRIPT_NAME" not in head.environ:
            self._strip_root(environ)
        response = Response(self, request, writer, environ[REQUEST_ID_KEY])
        body: Iterable[bytes] | None = None
        start_ns = cell.enter(head.request_line, self._deadline_ns, self._slow_ns)
        # BaseException: SystemExit and KeyboardInterrupt of an application end its request, not the worker.
        try:
            body = self.app(environ, response.start_response)
            response.send_body(body)
        except BaseException as error:
            self._fail(response, error)
        close = getattr(body, "close", None)
        if close is not None:
            writer.send_meanwhile()
            try:
                close()
            except BaseException as error:
                self._report(response, "close() of the response raised", error)
        encoded = response.encoded
        status = encoded.code if encoded else 500
        elapsed_ns = cell.leave(head.method, status, start_ns, response.sent_bytes)
        if self._access is not None:
            entry = AccessEntry(
                head.environ.get("REMOTE_ADDR", request.base["REMOTE_ADDR"]),
                head.method,
                head.target,
                head.environ["SERVER_PROTOCOL"],
                status,
                response.sent_bytes,
                time() - elapsed_ns / 1e9,
                elapsed_ns,
                environ,
                response.headers,
                environ.get("REMOTE_USER", ""),
            )
            self._access.record(entry)
        return response.keep_alive

    def refuse(self, status: int, reason: str, received: bytes, base: Environ) -> bytes:
        """Return the complete answer to a request that does not reach the application; close after it.

        ``received`` is the request from its first byte, as far as it is at hand.
        """
        answer = own_response(status, reason, connection_line(False, True), self.server_lines(None))
        method, target, protocol = readable_line(received)
        head_bytes = answer.index(b"\r\n\r\n") + 4
        if method == "HEAD":
            answer = answer[:head_bytes]
        if self._access is not None:
            sent_bytes = len(answer) - head_bytes
            entry = AccessEntry(
                base["REMOTE_ADDR"], method, target, protocol, status, sent_bytes, time(), elapsed_ns=0
            )
            self._access.record(entry)
        return answer

    def server_lines(self, encoded: EncodedHead | None) -> bytes:
        """Return Date, Server and the blank line; without what the application set itself."""
        now = int(time())
        second, date_line, both = self._stamp
        if now != second:
            date_line = f"Date: {formatdate(now, usegmt=True)}\r\n".encode("ascii")
            both = date_line + self._server_line + b"\r\n"
            # One assignment: other threads see the old values or the new ones.
            self._stamp = (now, date_line, both)
        if encoded is None or not (encoded.has_date or encoded.has_server):
            return both
        lines = b"" if encoded.has_date else date_line
        return lines + b"\r\n" if encoded.has_server else lines + self._server_line + b"\r\n"

    def _strip_root(self, environ: Environ) -> None:
        """Split the path at ``root_path``, which is in SCRIPT_NAME; a proxy may have taken it off already."""
        path, root = environ["PATH_INFO"], self._root_path
        if path == root or path.startswith(root + "/"):
            environ["PATH_INFO"] = path[len(root) :]

    def _fail(self, response: Response, error: BaseException) -> None:
        """Answer 500 if nothing was sent, else cut the connection so that the client can tell."""
        if response.client_gone:
            head = response.request.head
            self.log.debug(
                "client-gone",
                "the client left before its response was sent",
                method=head.method,
                target=head.target,
                request_id=response.request_id,
            )
            return
        self._report(response, "the application raised", error)
        if response.head_sent:
            response.cut()
            return
        try:
            response.send_error()
        except ClientGone:
            pass

    def _report(self, response: Response, what: str, error: BaseException) -> None:
        head = response.request.head
        self.log.error(
            "request-failed",
            f"{what} {type(error).__name__}: {head.method} {head.target}",
            method=head.method,
            target=head.target,
            request_id=response.request_id,
            traceback=application_traceback(error),
        )
