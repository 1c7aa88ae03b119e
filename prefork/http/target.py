"""The request line: method, target in its four forms, version (RFC 9112 §3)."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from prefork.http.refusal import BadRequest, shown

# RFC 9112 §3: single spaces only; §2.2 lets a server be lenient about whitespace, we are not.
# Looser than RFC 3986: any visible ASCII but "#" may stand in a target, since browsers send |, ^ and {} bare.
# Stricter than the field: no raw bytes above ASCII, which peers decode in different ways.
_REQUEST_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) ([!\"$-~]++) HTTP/([0-9]\.[0-9])")
_VERSIONS = MappingProxyType({"1.1": (1, 1), "1.0": (1, 0)})

# What a refused request was about: enough of its line to be useful in a log, whatever else is wrong with it.
_READABLE = re.compile(
    rb"[\r\n]*([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}) ([!-~]+)(?: (HTTP/[0-9]\.[0-9])(?![!-~]))?"
)
_SHOWN_TARGET = 512

# RFC 9110 §7.2 with RFC 3986 §3.2.2. No userinfo (RFC 9110 §4.2.4), no IPvFuture, no empty host, and no
# comma: two hosts joined by a proxy must not look like one.
_AUTHORITY = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2}){1,255})(?::[0-9]{0,5})?"
)

# RFC 9112 §3.2.2; other schemes are not ours to serve.
_ABSOLUTE = re.compile(r"https?://([^/?]*)([^?]*)(.*)", re.IGNORECASE)

# RFC 3986 §2.1. A NUL in a path is never meant well.
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")


class RequestLine(NamedTuple):
    """The parsed request line."""

    method: str
    target: str
    path: str
    query: str
    version: tuple[int, int]
    authority: str | None
    """Of a target in absolute form: it replaces Host (RFC 9112 §3.2.2)."""
    protocol: str
    """``HTTP/1.1`` or ``HTTP/1.0``."""
    raw: bytes


def readable_line(received: bytes) -> tuple[str, str, str]:
    """Return method, target and protocol from the beginning of a request that was refused, for the log.

    What cannot be read is empty; a long target is cut and ends with ``...``.
    """
    match = _READABLE.match(received)
    if match is None:
        return "", "", ""
    method, target, protocol = (part.decode("latin-1") for part in match.groups(b""))
    return method, target if len(target) <= _SHOWN_TARGET else f"{target[:_SHOWN_TARGET]}...", protocol


def is_authority(value: str) -> bool:
    """Tell whether ``value`` may stand in Host: a host that is not empty and perhaps a port."""
    return _AUTHORITY.fullmatch(value) is not None


def parse_request_line(line: bytes) -> RequestLine:
    """Parse ``line``, which comes without its line end. Raises ``BadRequest`` 400, 501 or 505."""
    match = _REQUEST_LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        raise BadRequest(400, f"malformed request line {shown(line)}")
    method, target, digits = match.groups()
    version = _VERSIONS.get(digits)
    if version is None:
        raise BadRequest(505, f"HTTP version {digits} is not supported")
    if method == "CONNECT":
        raise BadRequest(501, "CONNECT is not supported")
    authority = None
    if target[0] == "/":
        path, _, query = target.partition("?")
    elif target == "*":
        # RFC 9112 §3.2.4. PEP 3333 wants PATH_INFO empty or beginning with a slash.
        if method != "OPTIONS":
            raise BadRequest(400, f"the target * is only for OPTIONS, not for {method}")
        path, query = "", ""
    else:
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            # Authority form is only for CONNECT (RFC 9112 §3.2.3), and nothing else is a target.
            raise BadRequest(400, f"malformed target {shown(line)}")
        authority, path, query = absolute[1], absolute[2] or "/", absolute[3][1:]
        if not is_authority(authority):
            raise BadRequest(400, f"malformed authority in the target {shown(line)}")
    if "%" in path:
        if _BAD_ESCAPE.search(path):
            raise BadRequest(400, f"malformed percent-encoding in the target {shown(line)}")
        path = unquote_to_bytes(path).decode("latin-1")
    return RequestLine(method, target, path, query, version, authority, f"HTTP/{digits}", line)
