"""Who sends a request, and so how much of it is believed: a stranger, or a proxy that is trusted.

Pure. A ``Sender`` takes part in the parsing of header blocks; each kind of sender has a parser of its own, so
that what it makes of a block is remembered like the block, and costs a kept-alive connection nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from prefork.http.forwarded import (
    NOTHING,
    Said,
    check_agreement,
    read_forwarded,
    read_x_forwarded,
    split_host,
)
from prefork.http.names import environ_key
from prefork.http.refusal import BadRequest, shown
from prefork.http.trust import Trust

REQUEST_ID_KEY = "prefork.request_id"
"""The request's id in the environ."""

_DEFAULT_PORTS = MappingProxyType({"http": "80", "https": "443"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:+/=@\-]{1,128}")

_HIDDEN_PREFIX = "HTTP_X_FORWARDED_"
# What proxies, CDNs and frameworks use to tell address, scheme, host, path or user of a client.
_HIDDEN_NAMES = """
    Forwarded X-Real-IP X-Client-IP X-Cluster-Client-IP X-Original-Forwarded-For X-ProxyUser-IP
    True-Client-IP CF-Connecting-IP CF-Connecting-IPv6 CF-Visitor Fastly-Client-IP Fastly-SSL
    X-Azure-ClientIP X-Azure-SocketIP X-Appengine-User-IP X-Envoy-External-Address X-Forwarded
    Forwarded-For Forwarded-Proto Forwarded-Host Cluster-Client-IP Client-IP
    X-Scheme X-Url-Scheme X-SSL Front-End-Https X-Https X-Proto X-Protocol
    X-Host X-Original-Host X-HTTP-Host-Override X-Original-URL X-Original-URI X-Original-Method X-Rewrite-URL
    X-Script-Name X-Remote-User X-Remote-Addr X-Remote-IP Remote-User Remote-Addr
    X-SSL-Client-Cert X-SSL-Client-Verify X-SSL-Client-Dn X-Client-Cert SSL-Client-Cert X-Client-Verify X-Client-Dn
"""
HIDDEN = frozenset(map(environ_key, _HIDDEN_NAMES.split()))


@dataclass(frozen=True)
class ProxyPolicy:
    """``proxy`` of the config, and ``request_id.trust``."""

    trust: tuple[str, ...] = ()
    forwarded: str = "x-forwarded"
    """``x-forwarded``, ``forwarded`` or ``off``."""
    use: tuple[str, ...] = ("for", "proto")
    drop: bool = True
    """Strangers must not send what only a proxy may say."""
    allow_names: tuple[str, ...] = ()
    """Names with underscores that a trusted proxy may send."""
    request_id: bool = True
    """A trusted proxy's ``X-Request-ID`` is the request's."""


DROPPED = ""
"""The key of a field that the application must not see."""

# No request has this field, and programs take that variable for their own proxy ("httpoxy", CVE-2016-5385).
_NEVER = frozenset(("HTTP_PROXY",))


class Sender:
    """One that sends only what it may: nothing is changed."""

    _allowed: Mapping[str, str] = MappingProxyType({})
    """Names with underscores, in lower case, that are wanted, and their keys."""
    _dropped = _NEVER
    _dropped_prefix = "not dropped"

    def key(self, name: str) -> str:
        """Return the environ's key for a field of this sender, or ``DROPPED``."""
        if "_" in name:
            # Would collide with the hyphened name in the environ, and so pose as it.
            return self._allowed.get(name.lower(), DROPPED)
        key = environ_key(name)
        return DROPPED if key in self._dropped or key.startswith(self._dropped_prefix) else key

    def amend(self, environ: dict[str, str]) -> None:
        """Change the fields of a request to what they mean, coming from this sender. Raises ``BadRequest``."""


class Stranger(Sender):
    """Anybody. What only a proxy may say is taken out, unless it is to be passed on."""

    def __init__(self, policy: ProxyPolicy) -> None:
        if policy.drop:
            self._dropped = _NEVER | HIDDEN | set(_keys(policy).values())
            self._dropped_prefix = _HIDDEN_PREFIX


class TrustedProxy(Sender):
    """A proxy in ``proxy.trust``. What it says of the client replaces what the connection says.

    The fields themselves stay, for middleware that looks at them. ``scheme`` is the connection's own.
    """

    def __init__(self, policy: ProxyPolicy, trust: Trust, scheme: str) -> None:
        self._allowed = _keys(policy)
        # The hyphened name could pose as the one with underscores that is wanted.
        self._dropped = _NEVER | set(self._allowed.values())
        self._policy = policy
        self._trust = trust
        self._scheme = scheme

    def amend(self, environ: dict[str, str]) -> None:
        policy = self._policy
        if policy.forwarded != "off":
            x = read_x_forwarded(environ, policy.use, self._trust)
            standard = NOTHING
            if "HTTP_FORWARDED" in environ:
                standard = read_forwarded(environ, policy.use, self._trust)
                check_agreement(x, standard)
            _apply(x if policy.forwarded == "x-forwarded" else standard, environ, self._scheme)
        if policy.request_id:
            request_id = environ.get("HTTP_X_REQUEST_ID")
            if request_id is not None and _REQUEST_ID.fullmatch(request_id):
                environ[REQUEST_ID_KEY] = request_id


def _keys(policy: ProxyPolicy) -> dict[str, str]:
    return {name.lower(): f"HTTP_{name.upper().replace('-', '_')}" for name in policy.allow_names}


def _apply(said: Said, environ: dict[str, str], scheme: str) -> None:
    """Write into ``environ``, which goes over the connection's own values."""
    if said.address is not None:
        environ["REMOTE_ADDR"] = said.address
        environ["REMOTE_PORT"] = said.port
    if said.scheme is not None:
        environ["wsgi.url_scheme"] = scheme = said.scheme
    if said.prefix is not None:
        environ["SCRIPT_NAME"] = said.prefix
    port = said.server_port
    if said.host is not None:
        name, own_port = split_host(said.host)
        if port and own_port and port != own_port:
            raise BadRequest(
                400, f"X-Forwarded-Port {port} contradicts the host {shown(said.host.encode('latin-1'))}"
            )
        port = port or own_port or _DEFAULT_PORTS[scheme]
        environ["SERVER_NAME"] = name
        environ["HTTP_HOST"] = said.host if own_port else _with_port(name, port, scheme)
    elif port and "HTTP_HOST" in environ:
        # Host may be the proxy's name for us, with our own port.
        environ["HTTP_HOST"] = _with_port(split_host(environ["HTTP_HOST"])[0], port, scheme)
    if port:
        environ["SERVER_PORT"] = port


def _with_port(name: str, port: str, scheme: str) -> str:
    return name if port == _DEFAULT_PORTS[scheme] else f"{name}:{port}"
