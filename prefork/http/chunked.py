"""The chunked transfer coding: an incremental, strict decoder for requests, and framing for responses.

Pure: bytes in, bytes out. See RFC 9112 §7.1.
"""

from __future__ import annotations

import re

from prefork.http.fields import field_names, is_broken
from prefork.http.head import HeadLimits
from prefork.http.refusal import BadRequest, shown

LAST_CHUNK = b"0\r\n\r\n"

# §7.1, §7.1.1: plain hex, no sign, no 0x, no space; extensions by their grammar, with the "bad whitespace"
# around ; and = that the RFC says must be tolerated. Leading zeros: at most 16 digits in all.
_EXTENSION = (
    rb"(?:[ \t]*;[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb"(?:[ \t]*=[ \t]*(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb'|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"))?)*'
)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(" + _EXTENSION + rb")")

_MAX_LINE_BYTES = 256
# Extensions mean nothing here, so a body may not consist of them.
_MAX_EXTENSIONS_BYTES = 16 * 1024

# RFC 9110 §6.5.1: framing, routing, authentication, request modifiers, content metadata. They were decided
# before the body was read, so a trailer must not be taken for one of them.
_FORBIDDEN_TRAILERS = """
    age authorization cache-control connection content-encoding content-length content-location
    content-range content-type cookie date expect expires forwarded from host if-match
    if-modified-since if-none-match if-range if-unmodified-since keep-alive location max-forwards
    origin pragma proxy-authenticate proxy-authorization range referer set-cookie te trailer
    transfer-encoding upgrade user-agent vary via warning www-authenticate x-forwarded-for
    x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-proto x-real-ip
"""
_FORBIDDEN = frozenset(_FORBIDDEN_TRAILERS.split())

# What the bytes to come belong to.
_SIZE, _DATA, _DATA_END, _TRAILERS, _COMPLETE = range(5)


def chunk(block: bytes) -> bytes:
    """Return ``block``, which must not be empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(block), block)


class ChunkedDecoder:
    """Decodes one body. Feed it what was received after the head, in any cuts, until ``complete``.

    Trailers are checked as strictly as header fields and then dropped: WSGI has no place for them.
    """

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._state = _SIZE
        self._kept = b""
        self._chunk_left = 0
        self._extensions_bytes = 0
        self._searched_bytes = 0
        """Of the trailers that are kept: a byte at a time they are not searched again and again."""
        self.body_bytes = 0
        """Announced so far: those of a chunk count as soon as its size is known."""
        self.complete = False
        self.rest = b""
        """Once complete: the bytes after the end of the message, which are the next request's."""

    def feed(self, data: bytes) -> bytes:
        """Return the body bytes that ``data`` yields, perhaps none. Raises ``BadRequest`` 400, 413 or 431."""
        data, self._kept = self._kept + data, b""
        pieces = []
        at = 0
        while at < len(data) and not self.complete:
            if self._state == _DATA:
                piece = data[at : at + self._chunk_left]
                pieces.append(piece)
                at += len(piece)
                self._chunk_left -= len(piece)
                if self._chunk_left == 0:
                    self._state = _DATA_END
                continue
            used = self._take_line(data, at)
            if used == 0:
                self._kept = data[at:]
                break
            at += used
        if self.complete:
            self.rest = data[at:]
        return b"".join(pieces)

    def _take_line(self, data: bytes, at: int) -> int:
        """Take what is not body at ``at``; return its length, or 0 when it is not all there yet."""
        if self._state == _DATA_END:
            if not b"\r\n".startswith(data[at : at + 2]):
                raise BadRequest(400, f"chunk longer than its size: {shown(data[at : at + 20])}")
            if len(data) - at < 2:
                return 0
            self._state = _SIZE
            return 2
        if self._state == _SIZE:
            return self._take_size(data, at)
        return self._take_trailers(data, at)

    def _take_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at, at + _MAX_LINE_BYTES)
        if end < 0:
            if len(data) - at >= _MAX_LINE_BYTES:
                raise BadRequest(400, f"chunk size line longer than {_MAX_LINE_BYTES} bytes")
            return 0
        match = _SIZE_LINE.fullmatch(data, at, end - 1)
        if match is None or data[end - 1] != 0x0D:
            raise BadRequest(400, f"malformed chunk size {shown(data[at:end])}")
        size = int(match[1], 16)
        self._extensions_bytes += len(match[2])
        if self._extensions_bytes > _MAX_EXTENSIONS_BYTES:
            raise BadRequest(400, f"more than {_MAX_EXTENSIONS_BYTES} bytes of chunk extensions")
        self.body_bytes += size
        if self.body_bytes > self._limits.body_bytes:
            raise BadRequest(413, f"chunked body longer than {self._limits.body_bytes} bytes")
        self._chunk_left = size
        self._state = _DATA if size else _TRAILERS
        return end + 1 - at

    def _take_trailers(self, data: bytes, at: int) -> int:
        if data[at : at + 2] == b"\r\n":
            self._complete()
            return 2
        end = data.find(b"\r\n\r\n", at + max(0, self._searched_bytes - 3))
        size = (end + 4 if end >= 0 else len(data)) - at
        if size > self._limits.head_bytes:
            raise BadRequest(431, f"trailers longer than {self._limits.head_bytes} bytes")
        if end < 0:
            if is_broken(data, at + max(0, self._searched_bytes - 1)):
                raise BadRequest(400, f"control byte or bare line end in the trailers: {shown(data[at:])}")
            self._searched_bytes = size
            return 0
        for name in field_names(data[at : end + 2], self._limits.fields):
            if name.lower() in _FORBIDDEN:
                raise BadRequest(400, f"forbidden trailer {name}")
        self._complete()
        return size

    def _complete(self) -> None:
        self._state = _COMPLETE
        self.complete = True
