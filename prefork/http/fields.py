"""Header fields: the block of lines between the request line and the blank line (RFC 9112 §5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from prefork.http.refusal import BadRequest, shown
from prefork.http.sender import Sender
from prefork.http.target import is_authority

# RFC 9112 §5: a token, a colon at once (§5.1), a value without control bytes but HTAB (RFC 9110 §5.5).
# Line folding (§5.2), bare CR and LF (§2.2) and NUL cannot match. Bytes above ASCII are obs-text: allowed.
_LINE = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n"
_BLOCK = re.compile(f"(?:{_LINE})*+")

# What no line can contain. A CR at the very end may still get its LF.
_BROKEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DIGITS = re.compile(r"[0-9]+")

_COMMON_NAMES = """
    Accept Accept-Charset Accept-Encoding Accept-Language Access-Control-Request-Headers
    Access-Control-Request-Method Authorization Cache-Control Connection Content-Encoding
    Content-Length Content-Type Cookie DNT Date Expect Forwarded From Host If-Match
    If-Modified-Since If-None-Match If-Range If-Unmodified-Since Keep-Alive Origin Pragma Priority
    Purpose Range Referer Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest
    Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Sec-GPC TE Traceparent Tracestate Transfer-Encoding
    Upgrade-Insecure-Requests User-Agent Via X-Forwarded-For X-Forwarded-Host X-Forwarded-Port
    X-Forwarded-Proto X-Real-IP X-Request-ID X-Requested-With
"""


def environ_key(name: str) -> str:
    """Return the environ's key for a field name (PEP 3333: CGI names)."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


# What clients send nearly always, as browsers spell it and as h2 gateways and Go do: saves the conversion.
_KEYS: Final[Mapping[str, str]] = {
    spelling: environ_key(name)
    for name in _COMMON_NAMES.split()
    for spelling in (name, name.lower(), name.title())
}


class Fields(NamedTuple):
    """The parsed header block, with what the server itself needs taken out of ``environ``."""

    environ: Mapping[str, str]
    has_host: bool
    content_length: int | None
    chunked: bool
    close: bool
    """``Connection`` holds ``close``, which wins (RFC 9112 §9.6)."""
    keep_alive: bool
    """``Connection`` holds ``keep-alive``: what HTTP/1.0 clients say."""
    expect: str | None


def parse_fields(block: bytes, max_fields: int, sender: Sender) -> Fields:
    """Parse the lines of ``block``, each with its line end. Raises ``BadRequest`` 400, 431 or 501."""
    lines = _lines(block, max_fields)
    reserved = sender.reserved
    environ: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        key = _KEYS.get(name)
        if key is None:
            if "_" in name:
                # Would collide with the hyphened name in the environ, and so pose as it: dropped, unless this
                # sender may use it.
                key = sender.names.get(name.lower())
                if key is None:
                    continue
            else:
                key = environ_key(name)
                if key == "HTTP_PROXY":
                    # No request has this field, and programs take that variable for their own proxy
                    # ("httpoxy", CVE-2016-5385).
                    continue
        if reserved and key in reserved and "_" not in name:
            # The hyphened name could pose as the one with underscores that is wanted.
            continue
        value = value.strip(" \t")
        if key in environ:
            environ[key] = _combined(key, environ[key], value)
        else:
            environ[key] = value
    fields = _understood(environ)
    sender.amend(environ)
    return fields


def is_broken(unfinished: bytes | bytearray, start: int) -> bool:
    """Tell whether no continuation can make ``unfinished`` right from ``start`` on.

    So a TLS hello or bare line feeds are refused at once and not at the deadline.
    """
    return _BROKEN.search(unfinished, start) is not None


def field_names(block: bytes, max_fields: int) -> list[str]:
    """Check ``block`` as ``parse_fields`` does and return the names only: all that is wanted of trailers."""
    return [line.partition(":")[0] for line in _lines(block, max_fields)]


def _lines(block: bytes, max_fields: int) -> list[str]:
    """Split ``block`` into lines, each of which is surely a field."""
    text = block.decode("latin-1")
    if _BLOCK.fullmatch(text) is None:
        raise BadRequest(400, _what_is_wrong(block))
    lines = text.split("\r\n")
    lines.pop()
    if len(lines) > max_fields:
        raise BadRequest(431, f"more than {max_fields} header fields")
    return lines


def _combined(key: str, first: str, second: str) -> str:
    """Join the values of a repeated field (RFC 9110 §5.3), unless a second one is an attack."""
    if key == "HTTP_HOST" or key == "CONTENT_LENGTH":
        # RFC 9112 §3.2 and §6.3; stricter for Content-Length: equal values are refused too.
        raise BadRequest(400, f"more than one {'Host' if key == 'HTTP_HOST' else 'Content-Length'}")
    return first + ("; " if key == "HTTP_COOKIE" else ", ") + second


def _understood(environ: dict[str, str]) -> Fields:
    get = environ.get
    coding, length = get("HTTP_TRANSFER_ENCODING"), get("CONTENT_LENGTH")
    content_length = None
    if coding is not None:
        if length is not None:
            # RFC 9112 §6.3: allowed to be repaired, but it is how requests are smuggled.
            raise BadRequest(400, "Transfer-Encoding together with Content-Length")
        _check_coding(coding)
        # §7.1.3: the application sees the body decoded, so the field has said its word.
        del environ["HTTP_TRANSFER_ENCODING"]
    elif length is not None:
        if _DIGITS.fullmatch(length) is None:
            # RFC 9112 §6.3: lists and signs are refused, also lists of equal values.
            raise BadRequest(400, f"malformed Content-Length {shown(length.encode('latin-1'))}")
        if len(length) > 19:
            raise BadRequest(413, f"Content-Length has {len(length)} digits")
        content_length = int(length)
        environ["CONTENT_LENGTH"] = str(content_length)
    host = get("HTTP_HOST")
    if host is not None and not is_authority(host):
        # RFC 9112 §3.2.
        raise BadRequest(400, f"malformed Host {shown(host.encode('latin-1'))}")
    connection = get("HTTP_CONNECTION")
    close = keep_alive = False
    if connection is not None:
        options = connection.lower().replace(" ", "").replace("\t", "").split(",")
        close, keep_alive = "close" in options, "keep-alive" in options
    return Fields(
        environ, host is not None, content_length, coding is not None, close, keep_alive, get("HTTP_EXPECT")
    )


def _check_coding(value: str) -> None:
    """Allow exactly ``chunked`` (RFC 9112 §6.1, §6.3)."""
    codings = [coding.strip(" \t") for coding in value.lower().split(",")]
    if codings == ["chunked"]:
        return
    quoted = shown(value.encode("latin-1"))
    if not all(_TOKEN.fullmatch(coding) for coding in codings):
        raise BadRequest(400, f"malformed Transfer-Encoding {quoted}")
    if codings[-1] != "chunked" or codings.count("chunked") > 1:
        # §6.3: without a final chunked the end of the body cannot be known. MUST be 400, known or not.
        raise BadRequest(400, f"Transfer-Encoding must end with one chunked, not {quoted}")
    raise BadRequest(501, f"Transfer-Encoding {quoted} is not supported")


def _what_is_wrong(block: bytes) -> str:
    """Name the first line that is not a field, for the log."""
    for line in block.split(b"\r\n"):
        if _BLOCK.fullmatch(line.decode("latin-1") + "\r\n") is None:
            if line[:1] in (b" ", b"\t"):
                return f"folded header line {shown(line)}"
            return f"malformed header line {shown(line)}"
    return "malformed header block"
