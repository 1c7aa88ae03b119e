"""What the fields say of the message itself: its host, its length, and what becomes of the connection."""

from __future__ import annotations

import re
from typing import NamedTuple

from prefork.http.refusal import BadRequest, shown
from prefork.http.target import is_authority

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DIGITS = re.compile(r"[0-9]+")


Said = tuple[tuple[int, int], str | None, str | None, str | None, str | None, str | None]
"""The version, then Host, Content-Length, Transfer-Encoding, Connection and Expect; None for what was not sent."""


class Control(NamedTuple):
    """What they mean; the fields are described in ``Head``."""

    content_length: int
    chunked: bool
    keep_alive: bool
    expect_continue: bool


def understand(said: Said, max_body_bytes: int) -> Control:
    """Return what ``said`` means. Raises ``BadRequest`` 400, 413, 417 or 501."""
    version, host, length_text, coding, connection, expect = said
    modern = version == (1, 1)
    chunked = coding is not None
    length = 0
    if coding is not None:
        if length_text is not None:
            # RFC 9112 §6.3: allowed to be repaired, but it is how requests are smuggled.
            raise BadRequest(400, "Transfer-Encoding together with Content-Length")
        _check_coding(coding)
    elif length_text is not None:
        length = _length(length_text)
    if host is not None and not is_authority(host):
        # RFC 9112 §3.2.
        raise BadRequest(400, f"malformed Host {_shown(host)}")
    if modern and host is None:
        # RFC 9112 §3.2.
        raise BadRequest(400, "HTTP/1.1 without Host")
    if chunked and not modern:
        # RFC 9112 §6.1: a 1.0 client, or proxy, would frame it otherwise.
        raise BadRequest(400, "Transfer-Encoding on HTTP/1.0")
    if length > max_body_bytes:
        raise BadRequest(413, f"Content-Length {length} is above {max_body_bytes}")
    expect_continue = False
    if expect is not None and modern:
        # RFC 9110 §10.1.1; on 1.0 it must be ignored.
        if expect.lower() != "100-continue":
            raise BadRequest(417, f"unknown expectation {_shown(expect)}")
        expect_continue = chunked or length > 0
    return Control(length, chunked, _keeps_alive(connection, modern), expect_continue)


def _keeps_alive(connection: str | None, modern: bool) -> bool:
    """Tell whether the client wants the connection to be kept; ``close`` wins (RFC 9112 §9.3, §9.6)."""
    if connection is None:
        return modern
    options = connection.lower().replace(" ", "").replace("\t", "").split(",")
    return "close" not in options and (modern or "keep-alive" in options)


def _length(value: str) -> int:
    if _DIGITS.fullmatch(value) is None:
        # RFC 9112 §6.3: lists and signs are refused, also lists of equal values.
        raise BadRequest(400, f"malformed Content-Length {_shown(value)}")
    if len(value) > 19:
        raise BadRequest(413, f"Content-Length has {len(value)} digits")
    return int(value)


def _check_coding(value: str) -> None:
    """Allow exactly ``chunked`` (RFC 9112 §6.1, §6.3)."""
    codings = [coding.strip(" \t") for coding in value.lower().split(",")]
    if codings == ["chunked"]:
        return
    if not all(_TOKEN.fullmatch(coding) for coding in codings):
        raise BadRequest(400, f"malformed Transfer-Encoding {_shown(value)}")
    if codings[-1] != "chunked" or codings.count("chunked") > 1:
        # §6.3: without a final chunked the end of the body cannot be known. MUST be 400, known or not.
        raise BadRequest(400, f"Transfer-Encoding must end with one chunked, not {_shown(value)}")
    raise BadRequest(501, f"Transfer-Encoding {_shown(value)} is not supported")


def _shown(value: str) -> str:
    return shown(value.encode("latin-1"))
