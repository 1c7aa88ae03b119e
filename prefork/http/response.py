"""The head of a response: PEP 3333's checks, encoding, and how the body is framed (RFC 9112 §6).

Pure: what the application gave comes in, bytes or an error that names the offending value go out.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

from prefork.http.memo import Memo

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# RFC 9112 §4 and PEP 3333 ("999 Message here"). No control bytes, so no CR, LF or NUL can reach the wire.
_STATUS = re.compile(r"[1-5][0-9]{2} [\t -~\x80-\xff]*")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_LENGTH = re.compile(r"[0-9]{1,19}")

# PEP 3333 "Other HTTP Features": the connection is the server's.
_HOP_BY_HOP = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "trailers", "transfer-encoding", "upgrade"),
    )
)

_MEMO_ENTRIES = 256
_MEMO_BYTES = 1024

Headers = list[tuple[str, str]]


class Framing(NamedTuple):
    """How the body of one response ends (RFC 9112 §6.3)."""

    line: bytes
    """The header line that says so; empty when the application's own does."""
    length: int | None = None
    """Exactly so many bytes are sent; None: not known beforehand."""
    chunked: bool = False
    ends: bool = True
    """The client can tell where the response ends, so the connection may be kept."""
    bodiless: bool = False


class EncodedHead(NamedTuple):
    """Status and headers of the application, checked and encoded, without what the server adds."""

    code: int
    lines: bytes
    """Status line and header lines, each with its line end."""
    content_length: int | None
    """As given by the application."""
    as_given: Framing
    """That of the body, if the length is given."""
    has_date: bool
    has_server: bool
    has_request_id: bool
    bodiless: bool
    """This status never has a body (RFC 9110 §15.2, §15.3.5, §15.4.5)."""


_CHUNKED = Framing(b"Transfer-Encoding: chunked\r\n", chunked=True)
_UNTIL_CLOSE = Framing(b"", ends=False)
_NO_BODY = Framing(b"", 0, bodiless=True)
# An interim status as the only response: the client waits for another, so the end must tell it.
_INTERIM = Framing(b"", 0, bodiless=True, ends=False)


def frame(encoded: EncodedHead, is_head: bool, modern: bool, known_length: int | None) -> Framing:
    """Decide the framing. ``known_length``: of the whole body, if it is at hand; ``modern``: HTTP/1.1."""
    if encoded.bodiless:
        return _NO_BODY if encoded.code >= 200 else _INTERIM
    given = encoded.content_length
    if is_head:
        # What GET would have: an empty body of a HEAD tells nothing.
        if given is not None or not known_length:
            return _NO_BODY
        return Framing(_length_line(known_length), 0, bodiless=True)
    if given is not None:
        return encoded.as_given
    if known_length is not None:
        return Framing(_length_line(known_length), known_length)
    return _CHUNKED if modern else _UNTIL_CLOSE


def _length_line(length: int) -> bytes:
    return b"Content-Length: %d\r\n" % length


def connection_line(keep: bool, modern: bool) -> bytes:
    """Return the Connection header: said only where it differs from the version's default (RFC 9112 §9.3)."""
    if keep:
        return b"" if modern else b"Connection: keep-alive\r\n"
    return b"Connection: close\r\n"


class HeadEncoder:
    """Checks and encodes the heads of one server's responses. It remembers, so one should serve all."""

    def __init__(self) -> None:
        self._memo: Memo[tuple[object, ...], EncodedHead] = Memo(_MEMO_ENTRIES)

    def encode(self, status: str, headers: Headers) -> EncodedHead:
        """Return the head. Raises TypeError or ValueError, with the value, for what PEP 3333 forbids."""
        if type(headers) is not list:
            raise TypeError(f"response headers must be a list, not {headers!r:.200}")
        key = (status, *headers)
        try:
            encoded = self._memo.get(key)
        except TypeError:  # a header that cannot be hashed, such as a list: told below, with its value
            encoded = None
        if encoded is None:
            encoded = _encode(status, headers)
            if len(encoded.lines) <= _MEMO_BYTES:
                self._memo.remember(key, encoded)
        return encoded


def _encode(status: str, headers: Headers) -> EncodedHead:
    if not isinstance(status, str):
        raise TypeError(f"status must be a string, not {status!r:.200}")
    if _STATUS.fullmatch(status) is None:
        raise ValueError(f"status must look like '200 OK', not {status!r:.200}")
    code = int(status[:3])
    lines = [f"HTTP/1.1 {status}\r\n"]
    names = set()
    content_length = None
    for header in headers:
        name, value = _checked(header)
        lowered = name.lower()
        names.add(lowered)
        if lowered == "content-length":
            content_length = _length(value, content_length)
            if code < 200 or code in (204, 205):  # must not be sent (RFC 9110 §8.6), or must be 0 (§15.3.6)
                continue
        lines.append(f"{name}: {value}\r\n")
    if code == 205:
        content_length = 0
        lines.append("Content-Length: 0\r\n")
    return EncodedHead(
        code=code,
        lines="".join(lines).encode("latin-1"),
        content_length=content_length,
        as_given=Framing(b"", content_length),
        has_date="date" in names,
        has_server="server" in names,
        has_request_id="x-request-id" in names,
        bodiless=code < 200 or code in (204, 304),
    )


def _checked(header: object) -> tuple[str, str]:
    """Return the name and value of ``header``; the value without the spaces around it."""
    if type(header) is not tuple or len(header) != 2:
        raise TypeError(f"a response header must be a tuple (name, value), not {header!r:.200}")
    name, value = header
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"name and value of a response header must be strings, not {header!r:.200}")
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"malformed name of a response header: {header!r:.200}")
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f"control or non-latin-1 character in the response header {header!r:.200}")
    if name.lower() in _HOP_BY_HOP:
        raise ValueError(f"hop-by-hop response header {header!r:.200}: these are the server's (PEP 3333)")
    return name, value.strip(" \t")


def _length(value: str, before: int | None) -> int:
    if _LENGTH.fullmatch(value) is None:
        raise ValueError(f"malformed Content-Length in the response: {value!r:.200}")
    if before is not None:
        raise ValueError("more than one Content-Length in the response")
    return int(value)


def own_response(status: int, reason: str, connection: bytes, server_lines: bytes) -> bytes:
    """Return a complete answer of the server itself: a small text body with ``reason`` under the status.

    ``connection`` and ``server_lines`` are header lines; the latter end with the blank line.
    """
    title = f"{status} {HTTPStatus(status).phrase}"
    body = f"{title}\n{reason}\n" if reason else f"{title}\n"
    encoded = body.encode("ascii", "backslashreplace")
    head = b"HTTP/1.1 %b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n%b%b" % (
        title.encode("ascii"),
        len(encoded),
        connection,
        server_lines,
    )
    return head + encoded
