"""The gateway to the application: PEP 3333 in full.

Runs only in a worker, in whichever thread serves the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from io import BytesIO
from threading import get_ident
from time import monotonic_ns, time
from typing import Any

from prefork.http.response import EncodedHead, HeadEncoder, connection_line, own_response
from prefork.http.sender import REQUEST_ID_KEY
from prefork.http.target import readable_line
from prefork.log.access import Recorder
from prefork.log.access_format import AccessEntry
from prefork.log.log import Log
from prefork.log.stream import ErrorStream
from prefork.timelimits import TimeLimits
from prefork.tracebacks import application_traceback
from prefork.worker.environ import base_environ, connection_environ
from prefork.worker.exchange import ClientGone, Environ, Request, ThreadCell, Writer
from prefork.worker.request_hooks import RequestHooks, Started
from prefork.worker.request_id import request_ids
from prefork.worker.response import Response

LATE = "the application did not answer in time"

RETRY_LINE = b"Retry-After: 1\r\n"
"""Of 503: all its causes may be over soon."""

MOST_EXTENSION_S = 86_400

Application = Callable[[Environ, Any], Iterable[bytes]]


class Gateway:
    """Runs the application and frames what it answers; one for all threads of a worker."""

    def __init__(
        self,
        app: Application,
        *,
        log: Log,
        recorder: Recorder | None = None,
        multithread: bool = False,
        root_path: str = "",
        server_header: str | None = "prefork",
        responds_with_id: bool = False,
        limits: TimeLimits | None = None,
        cells: Sequence[ThreadCell] = (),
        hooks: RequestHooks = RequestHooks(),  # noqa: B008 (a constant)
    ) -> None:
        """``cells`` are those of the threads that will run the application. Make it after the fork."""
        self.app = app if hooks.started is None else _announced(app, hooks.started)
        self._finished = hooks.finished
        self.closes_at_once = hooks.finished is None and not multithread
        """Is a connection that is not kept closed as soon as the application has nothing left to do?"""
        self.log = log
        self._limits = limits or TimeLimits(0, 0)
        self._deadline_ns, self._slow_ns = self._limits.default
        self._cells = cells
        self._recorder = recorder
        self.encoder = HeadEncoder()
        self.responds_with_id = responds_with_id
        self._request_ids = request_ids()
        self._base = base_environ(ErrorStream(log), root_path, multithread)
        self._base["prefork.extend_deadline"] = self.extend_deadline
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
        response = Response(self, request, writer, environ)
        body: Iterable[bytes] | None = None
        cell.current = response
        deadline_ns, slow_ns = self._deadline_ns, self._slow_ns
        if self._limits.vary:
            deadline_ns, slow_ns = self._limits.of(head.environ["PATH_INFO"])
        start_ns = cell.enter(head.request_line, deadline_ns, slow_ns)
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
        is_answered = response.late is not None and response.late.has_answered
        if self._finished is not None:
            # Before it counts as over, so that its deadline holds for the hook, too.
            told = 504 if is_answered else status
            self._finished(environ, told, response.sent_bytes, monotonic_ns() - start_ns)
        has_exchange = writer.began_ns != 0
        sent_bytes = 0 if is_answered else response.sent_bytes
        elapsed_ns = cell.leave(
            head.method, 504 if is_answered else status, start_ns, sent_bytes, has_exchange
        )
        if has_exchange:
            writer.end_application(start_ns)
        if elapsed_ns >= slow_ns > 0:
            cell.end_slow(start_ns)
            if not is_answered:
                self._tell_end(response, status, elapsed_ns)
        if is_answered:
            return False  # and has been recorded by then
        if self._recorder is not None:
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
            self._recorder.record(entry)
        return response.keep_alive

    def extend_deadline(self, seconds: float) -> None:
        """Move the deadline of the request that the calling thread runs; ``environ["prefork.extend_deadline"]``.

        Does nothing where there is no deadline. Raises ``ValueError``, and ``RuntimeError`` in a thread that does not
        run a request, if several may.
        """
        by_ns = int(seconds * 1e9) if 0 <= seconds <= MOST_EXTENSION_S else -1
        if by_ns < 0:
            raise ValueError(f"a deadline is extended by 0 to {MOST_EXTENSION_S} seconds, not by {seconds!r}")
        ident = get_ident()
        for cell in self._cells:
            if cell.ident == ident or len(self._cells) == 1:
                cell.extend(by_ns)
                return
        if self._cells:
            raise RuntimeError("prefork.extend_deadline has to be called in the thread that runs the request")

    def refuse(self, status: int, reason: str, received: bytes, base: Environ) -> bytes:
        """Return the complete answer to a request that does not reach the application; close after it.

        ``received`` is the request from its first byte, as far as it is at hand.
        """
        lines = connection_line(False, True)
        if status == 503:
            lines = RETRY_LINE + lines
        answer = own_response(status, reason, lines, self.server_lines(None))
        method, target, protocol = readable_line(received)
        head_bytes = answer.index(b"\r\n\r\n") + 4
        if method == "HEAD":
            answer = answer[:head_bytes]
        if self._recorder is not None:
            sent_bytes = len(answer) - head_bytes
            entry = AccessEntry(
                base["REMOTE_ADDR"], method, target, protocol, status, sent_bytes, time(), elapsed_ns=0
            )
            self._recorder.record(entry)
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

    def answer_late(self, response: Response, start_ns: int) -> bytes:
        """Return the 504 to a request whose deadline has passed, and record it; close after it."""
        request, head = response.request, response.request.head
        lines = self.server_lines(None)
        if self.responds_with_id:
            lines = f"X-Request-ID: {response.request_id}\r\n".encode("ascii") + lines
        answer = own_response(504, LATE, connection_line(False, True), lines)
        head_bytes = answer.index(b"\r\n\r\n") + 4
        if head.method == "HEAD":
            answer = answer[:head_bytes]
        if self._recorder is not None:
            elapsed_ns = monotonic_ns() - start_ns
            entry = AccessEntry(
                head.environ.get("REMOTE_ADDR", request.base["REMOTE_ADDR"]),
                head.method,
                head.target,
                head.environ["SERVER_PROTOCOL"],
                504,
                len(answer) - head_bytes,
                time() - elapsed_ns / 1e9,
                elapsed_ns,
                response.environ,
            )
            self._recorder.record(entry)
        return answer

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

    def _tell_end(self, response: Response, status: int, elapsed_ns: int) -> None:
        """Log that a slow request is over."""
        head = response.request.head
        self.log.warning(
            "request-slow-ended",
            f"{head.request_line.decode('latin-1')!r} was slow: it ended with {status} after "
            f"{elapsed_ns / 1e9:.1f} s, id {response.request_id}",
            method=head.method,
            target=head.target,
            status=status,
            elapsed_s=round(elapsed_ns / 1e9, 3),
            request_id=response.request_id,
        )

    def _report(self, response: Response, what: str, error: BaseException) -> None:
        head = response.request.head
        self.log.error(
            "request-failed",
            f"{what} {type(error).__name__}: {head.method} {head.target}, id {response.request_id}",
            method=head.method,
            target=head.target,
            request_id=response.request_id,
            traceback=application_traceback(error),
        )


def _announced(app: Application, started: Started) -> Application:
    """Return the application with the hook before it."""

    def announced(environ: Environ, start_response: Any) -> Iterable[bytes]:
        started(environ)
        return app(environ, start_response)

    return announced
