"""The head of a request: request line and header fields, parsed strictly (RFC 9112 §2 to §7).

Pure: bytes in, an immutable ``Head`` or a ``BadRequest`` out. Where a rule is stricter or looser than
the RFC the comment says so; ``docs/supported-http.md`` is the same list for users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from prefork.http.control import Control, Said, understand
from prefork.http.fields import FieldParser, is_broken, parse_value
from prefork.http.memo import Memo, RepeatMemo
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
_MEMO_LINE_BYTES = 256

_COOKIE = b"\r\nCookie:"
_COOKIE_BYTES = len(_COOKIE)


class HeadParser:
    """Parses the heads of one kind of sender. It remembers, so one should serve all connections of the kind."""

    def __init__(self, limits: HeadLimits, sender: Sender | None = None) -> None:
        self.limits = limits
        self._heads: RepeatMemo[bytes, Head] = RepeatMemo(_MEMO_ENTRIES)
        self._cookieless: RepeatMemo[bytes, Head] = RepeatMemo(_MEMO_ENTRIES)
        """By the bytes without the Cookie, which are a head that may have one more field."""
        self.known = self._heads.get
        """``known(buffer)``: the head, if the buffer is exactly one complete head that was seen before."""
        self._request_lines: Memo[bytes, RequestLine] = Memo(_MEMO_ENTRIES)
        self._sender = sender or Sender()
        self._fields = FieldParser(limits.fields, self._sender)
        self._controls: Memo[Said, Control] = Memo(_MEMO_ENTRIES)

    def find_end(self, buffer: bytes | bytearray, start: int = 0) -> int:
        """Return the length of the head at the beginning of ``buffer``, or -1 when more bytes are needed.

        ``start`` is the length that the buffer had at the last call, so that no byte is searched twice.
        Raises ``BadRequest`` 400, 414 or 431 as soon as the bytes at hand decide it.
        """
        begin = _empty_lines(buffer) if buffer.startswith(b"\r") else 0
        end = buffer.find(b"\r\n\r\n", max(begin, start - 3) if start else begin)
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
        if head is None:
            cookie_at = raw.rfind(_COOKIE)  # Mostly near the end.
            # After an empty line it would be the request line.
            if cookie_at > 0 and not raw.startswith(b"\r"):
                head = self._parse_with_cookie(raw, cookie_at)
            else:
                head = self._parse(raw)
            if len(raw) <= MEMO_BYTES and self._heads.is_repeated(raw):
                self._heads.remember(raw, head)
        return head

    def _parse_with_cookie(self, raw: bytes, at: int) -> Head:
        """Parse a head with a cookie: all users of one browser send the same, but for that."""
        end = raw.index(b"\r", at + 2)  # A bare CR stays in the others, which then are no head.
        others = raw[:at] + raw[end:]
        head = self._cookieless.get(others)
        if head is None or len(raw) > self.limits.head_bytes:
            if len(others) <= MEMO_BYTES and self._cookieless.is_repeated(others):
                head = self._parse(others)
                if "HTTP_COOKIE" not in head.environ and others.count(b"\n") - 2 < self.limits.fields:
                    self._cookieless.remember(others, head)
            return self._parse(raw)
        environ = {**head.environ, "HTTP_COOKIE": parse_value(raw[at + _COOKIE_BYTES : end])}
        return tuple.__new__(Head, (*head[:5], environ, *head[6:]))

    def _parse(self, raw: bytes) -> Head:
        begin = _empty_lines(raw) if raw.startswith(b"\r") else 0
        line_end = raw.index(b"\r\n", begin)
        if line_end - begin > self.limits.request_line_bytes or len(raw) > self.limits.head_bytes:
            self._check_sizes(raw, begin)
        request_line = raw[begin:line_end]
        line = self._request_lines.get(request_line)
        if line is None:
            line = parse_request_line(request_line)
            if len(request_line) <= _MEMO_LINE_BYTES and b"?" not in request_line:
                self._request_lines.remember(request_line, line)
        environ = self._fields.parse(raw[line_end + 2 : -2])
        get = environ.get
        length = get("CONTENT_LENGTH")
        said = (
            line.version,
            get("HTTP_HOST"),
            length,
            get("HTTP_TRANSFER_ENCODING"),
            get("HTTP_CONNECTION"),
            get("HTTP_EXPECT"),
        )
        control = self._controls.get(said)
        if control is None:
            control = understand(said, self.limits.body_bytes)
            if len(raw) <= MEMO_BYTES:
                self._controls.remember(said, control)
        # The application sees these as they are meant.
        if length is not None:
            environ["CONTENT_LENGTH"] = str(control.content_length)
        elif control.chunked:
            # RFC 9112 §7.1.3: the body will be decoded, so the field has said its word.
            del environ["HTTP_TRANSFER_ENCODING"]
        self._sender.amend(environ)
        if line.authority is not None and "SERVER_NAME" not in environ:  # else a proxy has told the host
            environ["HTTP_HOST"] = line.authority
        environ["REQUEST_METHOD"] = line.method
        environ["PATH_INFO"] = line.path
        environ["QUERY_STRING"] = line.query
        environ["SERVER_PROTOCOL"] = line.protocol
        environ["REQUEST_URI"] = environ["RAW_URI"] = line.target
        # Without the constructor, which takes as long as half of this function.
        return tuple.__new__(Head, (*line[:5], environ, *control, line.raw))

    def _check_sizes(self, buffer: bytes | bytearray, begin: int) -> None:
        limit = self.limits.request_line_bytes
        # A line that is one byte too long, or its CR, decides; so whole and in pieces give the same status.
        if len(buffer) - begin > limit and buffer.find(b"\r", begin, begin + limit + 1) < 0:
            raise BadRequest(414, f"request line longer than {limit} bytes")
        if len(buffer) > self.limits.head_bytes:
            raise BadRequest(431, f"head longer than {self.limits.head_bytes} bytes")


def _empty_lines(buffer: bytes | bytearray) -> int:
    """Return the number of bytes that empty lines take at the beginning of ``buffer``."""
    begin = 0
    while buffer[begin : begin + 2] == b"\r\n":
        begin += 2
        if begin > _MAX_EMPTY_LINES_BYTES:
            raise BadRequest(400, "empty lines instead of a request")
    return begin
