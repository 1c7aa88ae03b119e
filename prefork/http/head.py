"""The head of a request: request line and header fields, parsed strictly (RFC 9112 §2 to §7).

Pure: bytes in, an immutable ``Head`` or a ``BadRequest`` out. Where a rule is stricter or looser than
the RFC the comment says so; ``docs/supported-http.md`` is the same list for users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from prefork.http.fields import Fields, is_broken, parse_fields
from prefork.http.memo import Memo
from prefork.http.refusal import BadRequest, shown
from prefork.http.sender import Sender
from prefork.http.target import RequestLine, parse_request_line


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Bounds of one request, from ``limits`` in the config."""

    request_line_bytes: int = 8 * 1024
    fields: int = 100
    head_bytes: int = 32 * 1024
    body_bytes: int = 100 * 1024 * 1024


class Head(NamedTuple):
    """The parsed head of a request. Immutable, and shared between requests with the same bytes."""

    method: str
    target: str
    """As sent."""
    path: str
    """Percent-decoded, as latin-1; empty for ``OPTIONS *``."""
    query: str
    version: tuple[int, int]
    environ: Mapping[str, str]
    """REQUEST_METHOD … QUERY_STRING, CONTENT_TYPE, CONTENT_LENGTH and HTTP_*; to be copied.

    From a trusted proxy also what it says of the client, REMOTE_ADDR and others, which goes over what is known of
    the connection.
    """
    content_length: int
    """0 without a body, and for a chunked one."""
    chunked: bool
    keep_alive: bool
    """What the client wants, by its version and ``Connection``."""
    expect_continue: bool
    """The client waits for ``100 Continue`` before it sends the body (only ever true with a body)."""
    request_line: bytes
    """Without the line end."""


# RFC 9112 §2.2: a server should ignore an empty line before the request line. Bounded, in bytes.
_MAX_EMPTY_LINES_BYTES = 8

# Heads up to this size are remembered; longer ones are rare and would make the memo large.
MEMO_BYTES = 2048
_MEMO_ENTRIES = 256


class HeadParser:
    """Parses the heads of one kind of sender. It remembers, so one should serve all connections of the kind."""

    def __init__(self, limits: HeadLimits, sender: Sender | None = None) -> None:
        self.limits = limits
        self._sender = sender or Sender()
        self._heads: Memo[bytes, Head] = Memo(_MEMO_ENTRIES)
        self.known = self._heads.get
        """``known(buffer)``: the head, if the buffer is exactly one complete head that was seen before."""
        self._blocks: Memo[bytes, Fields] = Memo(_MEMO_ENTRIES)

    def find_end(self, buffer: bytes | bytearray, start: int = 0) -> int:
        """Return the length of the head at the beginning of ``buffer``, or -1 when more bytes are needed.

        ``start`` is the length that the buffer had at the last call, so that no byte is searched twice.
        Raises ``BadRequest`` 400, 414 or 431 as soon as the bytes at hand decide it.
        """
        begin = _empty_lines(buffer) if buffer[:1] == b"\r" else 0
        end = buffer.find(b"\r\n\r\n", max(begin, start - 3))
        if end >= 0:
            return end + 4
        self._check_sizes(buffer, begin)
        if is_broken(buffer, max(begin, start - 1)):
            raise BadRequest(
                400, f"control byte or bare line end in the head: {shown(bytes(buffer[begin:]))}"
            )
        return -1

    def parse(self, raw: bytes) -> Head:
        """Parse the complete head ``raw``, as found by ``find_end``. Raises ``BadRequest``."""
        head = self._heads.get(raw)
        if head is not None:
            return head
        head = self._parse(raw)
        return self._heads.remember(raw, head) if len(raw) <= MEMO_BYTES else head

    def _parse(self, raw: bytes) -> Head:
        begin = _empty_lines(raw) if raw[:1] == b"\r" else 0
        self._check_sizes(raw, begin)
        line_end = raw.index(b"\r\n", begin)
        request_line = raw[begin:line_end]
        line = parse_request_line(request_line)
        block = raw[line_end + 2 : -2]
        fields = self._blocks.get(block)
        if fields is None:
            fields = parse_fields(block, self.limits.fields, self._sender)
            if len(block) <= MEMO_BYTES:
                self._blocks.remember(block, fields)
        return self._combine(request_line, line, fields)

    def _check_sizes(self, buffer: bytes | bytearray, begin: int) -> None:
        limit = self.limits.request_line_bytes
        # A line that is one byte too long, or its CR, decides; so whole and in pieces give the same status.
        if len(buffer) - begin > limit and buffer.find(b"\r", begin, begin + limit + 1) < 0:
            raise BadRequest(414, f"request line longer than {limit} bytes")
        if len(buffer) > self.limits.head_bytes:
            raise BadRequest(431, f"head longer than {self.limits.head_bytes} bytes")

    def _combine(self, request_line: bytes, line: RequestLine, fields: Fields) -> Head:
        """Apply the rules that concern the request line and the fields together."""
        environ = dict(fields.environ)
        modern = line.version == (1, 1)
        if modern and not fields.has_host:
            # RFC 9112 §3.2.
            raise BadRequest(400, "HTTP/1.1 without Host")
        if line.authority is not None and "SERVER_NAME" not in environ:  # else a proxy has told the host
            environ["HTTP_HOST"] = line.authority
        if fields.chunked and not modern:
            # RFC 9112 §6.1: a 1.0 client, or proxy, would frame it otherwise.
            raise BadRequest(400, "Transfer-Encoding on HTTP/1.0")
        length = fields.content_length or 0
        if length > self.limits.body_bytes:
            raise BadRequest(413, f"Content-Length {length} is above {self.limits.body_bytes}")
        expect_continue = False
        if fields.expect is not None and modern:
            # RFC 9110 §10.1.1; on 1.0 it must be ignored.
            if fields.expect.lower() != "100-continue":
                raise BadRequest(417, f"unknown expectation {shown(fields.expect.encode('latin-1'))}")
            expect_continue = fields.chunked or length > 0
        environ["REQUEST_METHOD"] = line.method
        environ["PATH_INFO"] = line.path
        environ["QUERY_STRING"] = line.query
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if modern else "HTTP/1.0"
        environ["REQUEST_URI"] = environ["RAW_URI"] = line.target
        keep_alive = not fields.close and (modern or fields.keep_alive)
        # By position: with names it would take twice as long.
        return Head(*line[:5], environ, length, fields.chunked, keep_alive, expect_continue, request_line)


def _empty_lines(buffer: bytes | bytearray) -> int:
    """Return the number of bytes that empty lines take at the beginning of ``buffer``."""
    begin = 0
    while buffer[begin : begin + 2] == b"\r\n":
        begin += 2
        if begin > _MAX_EMPTY_LINES_BYTES:
            raise BadRequest(400, "empty lines instead of a request")
    return begin
