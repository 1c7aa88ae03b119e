"""One response: PEP 3333's ``start_response`` and ``write()``, framed for the wire; runs only in a worker.

Its states: nothing yet, started (``start_response`` was called), head sent, complete. The head is held back
until the first block that is not empty, so that an error before it can still become a 500.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from prefork.http.chunked import LAST_CHUNK, chunk
from prefork.http.response import EncodedHead, Headers, connection_line, frame
from prefork.http.sender import REQUEST_ID_KEY
from prefork.worker.exchange import ClientGone, Environ, Request, Writer
from prefork.worker.files import FileRange, FileWrapper

if TYPE_CHECKING:
    from prefork.worker.gateway import Gateway
    from prefork.worker.late import Late

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

# Up to this size copying a block behind its head is cheaper than sending from two places.
_JOIN_BYTES = 16 * 1024


class Response:
    """The response to one request; new for each, so that a ``start_response`` kept too long is harmless."""

    # Defaults of the class: what a short response does not touch costs it nothing.
    encoded: EncodedHead | None = None
    headers: Headers = []  # noqa: RUF012 (replaced, never changed)
    head_sent = False
    keep_alive = False
    """What the head told the client."""
    sent_bytes = 0
    """Of the body, without its framing."""
    client_gone = False
    late: Late | None = None
    """Set when the deadline has passed, by another thread; see ``prefork.worker.late``."""
    _chunked = False
    _left_bytes: int | None = None
    """Of the Content-Length; None while it is not known, and when there is none."""
    _full = False
    """Nothing more will be sent: there is no body, or all of it was; a late ``write()`` does nothing."""

    def __init__(self, gateway: Gateway, request: Request, writer: Writer, environ: Environ) -> None:
        self._gateway = gateway
        self.request = request
        self.writer = writer
        self.environ = environ
        self.request_id: str = environ[REQUEST_ID_KEY]

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """The application's ``start_response`` (PEP 3333). Raises what is wrong with its arguments."""
        if exc_info is not None:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through this frame
        elif self.encoded is not None:
            raise RuntimeError("start_response was called a second time without exc_info")
        self.encoded = self._gateway.encoder.encode(status, headers)
        self.headers = headers
        return self.write

    def write(self, block: bytes) -> None:
        """The application's ``write()`` (PEP 3333), and the way of every block of an iterable."""
        if not isinstance(block, bytes):
            raise TypeError(f"the body must consist of bytes, not {type(block).__name__}: {block!r:.100}")
        if not block:
            return
        if not self.head_sent:
            self._send_head(None, block)
        elif payload := self._framed(block):
            self._write(payload)
        else:
            return
        self.writer.send_meanwhile()

    def send_body(self, body: Iterable[bytes]) -> None:
        """Send what the application returned, and end the response."""
        if type(body) is list or type(body) is tuple:
            self._send_whole(body, last=True)
        elif type(body) is FileWrapper and not self.head_sent and (file := body.range()) is not None:
            self._send_file(body, file)
        else:
            for block in body:
                self.write(block)
                if self._full:
                    break
        if not self.head_sent:
            self._send_head(0, b"")
        if self._chunked:
            self._write(LAST_CHUNK)
        elif self._left_bytes:
            self.keep_alive = False
            self._warn(
                "response-short", f"the body is {self._left_bytes} bytes shorter than its Content-Length"
            )
        self._full = True

    @property
    def is_complete(self) -> bool:
        """Was all of it written?"""
        return self._full

    def send_error(self) -> None:
        """Send a 500 instead of what the application began."""
        self.headers = [("Content-Type", "text/plain; charset=utf-8")]
        self.encoded = self._gateway.encoder.encode("500 Internal Server Error", self.headers)
        self._send_whole([b"500 Internal Server Error\n"])
        self._full = True

    def cut(self) -> None:
        """Reset the connection, unless the client has, or will have, a whole response."""
        self.keep_alive = False
        self._full = True
        if self._left_bytes != 0:
            self.writer.abort()

    def _send_whole(self, blocks: Sequence[bytes], *, last: bool = False) -> None:
        """Send a body that is all there, so that its length is known.

        ``last``: nothing of the application runs after it.
        """
        if len(blocks) == 1 and isinstance(blocks[0], bytes):
            block = blocks[0]
        else:
            for block in blocks:
                if not isinstance(block, bytes):
                    self.write(block)
            block = b"".join(blocks)
        if self.head_sent:
            self.write(block)
        else:
            self._send_head(len(block), block, last=last)

    def _send_file(self, wrapper: FileWrapper, file: FileRange) -> None:
        """Send the rest of a file. A shorter Content-Length is no mistake here: it makes a range of it."""
        encoded = self.encoded
        size = file.size
        if encoded is not None and encoded.content_length is not None:
            size = min(size, encoded.content_length)
        if size > _JOIN_BYTES:
            self._send_head(size, b"", file._replace(size=size))
        else:
            self._send_whole([wrapper.filelike.read(size)])

    def _send_head(
        self, known_length: int | None, block: bytes, file: FileRange | None = None, *, last: bool = False
    ) -> None:
        """Send the head and the first block together, or the head and a file."""
        encoded = self.encoded
        if encoded is None:
            raise RuntimeError("start_response was not called before the body")
        head = self.request.head
        modern = head.version == (1, 1)
        framing = frame(encoded, head.method == "HEAD", modern, known_length)
        self._chunked = framing.chunked
        self._left_bytes = framing.length
        self._full = framing.bodiless
        keep = head.keep_alive and self.request.keep_alive and framing.ends
        self.keep_alive = keep
        self.head_sent = True
        # After the line above: see ``Late``. One of the two threads sees the other.
        if self.late is not None and not self.late.may_send():
            self._note_gone()
            raise ClientGone("the client was told that the deadline has passed")
        gateway = self._gateway
        lines = gateway.server_lines(encoded)
        if gateway.responds_with_id and not encoded.has_request_id:
            lines = f"X-Request-ID: {self.request_id}\r\n".encode("ascii") + lines
        data = b"".join((encoded.lines, framing.line, connection_line(keep, modern), lines))
        if file is not None:
            self._write_file(data, file)
            return
        payload = self._framed(block)
        closes = last and not keep and gateway.closes_at_once
        self._write(data + payload if len(payload) <= _JOIN_BYTES else (data, payload), closes)

    def _framed(self, block: bytes) -> bytes:
        """Return what of ``block`` goes to the wire, as it goes there; count it."""
        if self._full:
            return b""
        if self._chunked:
            self.sent_bytes += len(block)
            return chunk(block)
        if self._left_bytes is not None:
            if len(block) > self._left_bytes:
                self._full = True
                self._warn("response-long", "the body is longer than its Content-Length; the rest is cut off")
                block = block[: self._left_bytes]
            self._left_bytes -= len(block)
        self.sent_bytes += len(block)
        return block

    def _write_file(self, head: bytes, file: FileRange) -> None:
        if self._full:
            self._write(head)
            return
        if self._left_bytes is not None:
            self._left_bytes -= file.size
        self.sent_bytes += file.size
        try:
            self.writer.write_file(head, *file)
        except ClientGone:
            self._note_gone()
            raise

    def _write(self, data: bytes | tuple[bytes, bytes], last: bool = False) -> None:
        try:
            self.writer.write(data, last)
        except ClientGone:
            self._note_gone()
            raise

    def _note_gone(self) -> None:
        self.client_gone = True
        self.keep_alive = False

    def _warn(self, event: str, message: str) -> None:
        head = self.request.head
        self._gateway.log.warning(
            event,
            f"{message}: {head.method} {head.target}, id {self.request_id}",
            method=head.method,
            target=head.target,
            request_id=self.request_id,
        )
