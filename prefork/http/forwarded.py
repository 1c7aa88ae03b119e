"""What proxies say of a request that they passed on: ``X-Forwarded-*`` and ``Forwarded`` (RFC 7239).

Pure. Only what a trusted proxy sent comes here, but a proxy may pass on what its client invented, so the
lists are read from the right: the rightmost address that is not trusted is the client's, and what stands to
the left of it is hearsay. What contradicts itself is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from prefork.http.refusal import BadRequest, shown
from prefork.http.target import is_authority
from prefork.http.trust import UNIX, Trust, plain_address

T = TypeVar("T")

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

# RFC 7239 §6, and what X-Forwarded-For has besides: a bare IPv6 address, and nginx's "unix:".
_PORT = r"(?::([0-9]{1,5}|_[A-Za-z0-9._\-]+))?"
_NODE = re.compile(
    rf"(?:([0-9.]{{7,15}})|\[([0-9A-Fa-f:.]{{2,45}})\]|(?i:unknown)|_[A-Za-z0-9._\-]+){_PORT}|(unix:)|([0-9A-Fa-f:.]{{2,45}})"
)

# RFC 7239 §4: token=value, where the value is a token or a quoted string. Looser: a colon and brackets, which
# an address with a port has, without the quotes. Possessive, so that no value takes quadratic time.
_TOKEN = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
_PAIR = re.compile(
    rf"[ \t]*+(?:([{_TOKEN}]++)=(?:([{_TOKEN}:\[\]]++)|\"((?:[^\"\\]|\\.)*+)\"))?+[ \t]*+([;,]|\Z)"
)

_PREFIX = re.compile(r"(?:/(?:[A-Za-z0-9\-._~!$&'()*+;=:@]|%(?!00)[0-9A-Fa-f]{2})+)*/?")

_REMEMBERED_CHARACTERS = 256


class Said(NamedTuple):
    """What proxies said; None where they said nothing."""

    address: str | None = None
    """Of the client; empty if they do not know it, or will not tell."""
    port: str = ""
    """Of the client, if known."""
    scheme: str | None = None
    host: str | None = None
    """As in Host: perhaps with a port."""
    server_port: str | None = None
    prefix: str | None = None
    """Percent-decoded, as latin-1, without a slash at its end."""


NOTHING = Said()


def read_x_forwarded(environ: Mapping[str, str], use: Collection[str], trust: Trust) -> Said:
    """Return what the parts in ``use`` of ``X-Forwarded-*`` say. Raises ``BadRequest``."""
    address, port = None, ""
    hops = environ.get("HTTP_X_FORWARDED_FOR") if "for" in use else None
    if hops:
        known = trust.clients.get(hops)
        if known is None:
            known = _listed_client(hops, trust)
            if len(hops) <= _REMEMBERED_CHARACTERS:
                trust.clients.remember(hops, known)
        address, port = known
    return Said(
        address,
        port,
        _scheme(_single(environ, use, "proto")),
        _host(_single(environ, use, "host")),
        _port(_single(environ, use, "port")),
        _prefix(_single(environ, use, "prefix")),
    )


def read_forwarded(environ: Mapping[str, str], use: Collection[str], trust: Trust) -> Said:
    """Return what the parts in ``use`` of ``Forwarded`` say (RFC 7239 §5). Raises ``BadRequest``.

    The client's own element was added by our outermost proxy, which knows best how the client came; what it
    left out is taken from those further in.
    """
    elements = _elements(environ.get("HTTP_FORWARDED", ""))
    if not elements:
        return NOTHING
    # An element without "for" tells nothing of who sent it: trust ends there.
    at, (address, port) = _client([element.get("for", "unknown") for element in elements], trust)
    ours = elements[at:]
    named = "for" in use and "for" in elements[at]
    return Said(
        address if named else None,
        port if named else "",
        _scheme(_first(ours, "proto")) if "proto" in use else None,
        _host(_first(ours, "host")) if "host" in use else None,
    )


def check_agreement(one: Said, other: Said) -> None:
    """Raise ``BadRequest`` if the two say different things."""
    for name, first, second in zip(Said._fields, one, other, strict=True):
        if first and second and first != second:
            values = " and ".join(shown(value.encode("latin-1")) for value in (first, second))
            raise BadRequest(400, f"X-Forwarded and Forwarded contradict each other in {name}: {values}")


def split_host(host: str) -> tuple[str, str]:
    """Split an authority into name and port, which may be empty."""
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and not port.endswith("]") else (host, "")


def _listed_client(value: str, trust: Trust) -> tuple[str | None, str]:
    hops = _listed(value)
    return _client(hops, trust)[1] if hops else (None, "")


def _client(hops: Sequence[str], trust: Trust) -> tuple[int, tuple[str, str]]:
    """Return the index, the address and the port of the rightmost hop that is not trusted, else of the first."""
    for index in range(len(hops) - 1, -1, -1):
        address, port = _node(hops[index])
        if address not in trust:
            break
    return index, ("" if address == UNIX else address, port)


def _node(text: str) -> tuple[str, str]:
    """Return the address, in its usual form, and the port of one hop; empty if it is hidden."""
    match = _NODE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        four, six, port, unix, bare = match.groups()
        written = four or six or bare
        if unix:
            return UNIX, ""
        return str(plain_address(written)) if written else "", port if port and port[0] != "_" else ""
    except ValueError:
        raise BadRequest(400, f"malformed address of a client {shown(text.encode('latin-1'))}") from None


def _elements(text: str) -> list[dict[str, str]]:
    """Return the elements of ``Forwarded`` that are not empty, their parameters in lower case."""
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            raise BadRequest(400, f"malformed Forwarded {shown(text[position:].encode('latin-1'))}")
        name, token, quoted, delimiter = match.groups()
        if name is not None:
            value = token if token is not None else re.sub(r"\\(.)", r"\1", quoted)
            if elements[-1].setdefault(name.lower(), value) is not value:
                # §4: each parameter must not occur more than once per element.
                raise BadRequest(400, f"more than one {name.lower()} in an element of Forwarded")
        if delimiter == ",":
            elements.append({})
        position = match.end()
    return [element for element in elements if element]


def _first(elements: Sequence[Mapping[str, str]], name: str) -> str | None:
    return next((element[name] for element in elements if name in element), None)


def _listed(value: str) -> list[str]:
    """Split a list; RFC 9110 §5.6.1: empty elements do not count."""
    return [item for item in (part.strip(" \t") for part in value.split(",")) if item]


def _single(environ: Mapping[str, str], use: Collection[str], part: str) -> str | None:
    """Return the value of ``X-Forwarded-<part>``, which several proxies may have set if they agree."""
    if part not in use:
        return None
    value = environ.get(f"HTTP_X_FORWARDED_{part.upper()}")
    if value is None:
        return None
    values = _listed(value)
    if any(other.lower() != values[0].lower() for other in values):
        name = f"X-Forwarded-{part.capitalize()}"
        raise BadRequest(400, f"contradictory values of {name}: {shown(value.encode('latin-1'))}")
    return values[0] if values else None


def _scheme(value: str | None) -> str | None:
    if value is None:
        return None
    scheme = _SCHEMES.get(value.lower())
    if scheme is None:
        raise BadRequest(400, f"unknown forwarded scheme {shown(value.encode('latin-1'))}")
    return scheme


def _host(value: str | None) -> str | None:
    if value is not None and not is_authority(value):
        raise BadRequest(400, f"malformed forwarded host {shown(value.encode('latin-1'))}")
    return value


def _port(value: str | None) -> str | None:
    if value is None:
        return None
    if not re.fullmatch("[0-9]{1,5}", value) or not 0 < int(value) < 65536:
        raise BadRequest(400, f"malformed forwarded port {shown(value.encode('latin-1'))}")
    return str(int(value))


def _prefix(value: str | None) -> str | None:
    if value is None:
        return None
    # Never "//host", which would make a link to another server out of a path.
    if not _PREFIX.fullmatch(value):
        raise BadRequest(400, f"malformed X-Forwarded-Prefix {shown(value.encode('latin-1'))}")
    return unquote_to_bytes(value.removesuffix("/")).decode("latin-1")
