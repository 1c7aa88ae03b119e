"""Who may see what: open endpoints for everybody, the others with the token, or from this machine when there is none.

Runs in the admin process. Pure. What a client says of itself counts only where it costs it the access: a request
that came through a proxy is no local one, wherever the proxy runs.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address

from prefork.admin.answer import Answer, Environ
from prefork.http.forwarded import split_host
from prefork.http.sender import HIDDEN

_FORWARDED = HIDDEN | {"HTTP_VIA"}
_FORWARDED_PREFIX = "HTTP_X_FORWARDED_"


class Access:
    """The rule of one admin process."""

    def __init__(self, server: str, token: str | None, open: Collection[str]) -> None:
        """``open``: names of endpoints that everybody may see."""
        self._server = server
        self._token = None if token is None else token.encode()
        self._open = frozenset(open)

    def refusal(self, name: str, environ: Environ) -> Answer | None:
        """Return the answer to who may not see the endpoint ``name``, None for who may."""
        if name in self._open:
            return None
        if self._token is not None:
            given = presented(environ.get("HTTP_AUTHORIZATION", ""))
            if given is not None and hmac.compare_digest(given, self._token):
                return None
            return self._unauthorized()
        why = _not_local(environ)
        return None if why is None else Answer.of_text(f"403 Forbidden\n{why}", "403 Forbidden")

    def _unauthorized(self) -> Answer:
        what = "This needs admin.token of the config: as a bearer token, or as the password of any user."
        challenges = (f'Basic realm="prefork {self._server}", charset="UTF-8"', "Bearer")
        headers = (("WWW-Authenticate", challenge) for challenge in challenges)
        return Answer.of_text(f"401 Unauthorized\n{what}", "401 Unauthorized", *headers)


def presented(authorization: str) -> bytes | None:
    """Return the token of an Authorization field, None if there is none. See RFC 6750 §2.1 and RFC 7617."""
    scheme, _, rest = authorization.partition(" ")
    rest = rest.strip(" ")
    match scheme.lower():
        case "bearer" if rest:
            return rest.encode("latin-1")
        case "basic":
            try:
                user_and_password = base64.b64decode(rest, validate=True)
            except (binascii.Error, ValueError):
                return None
            return user_and_password.partition(b":")[2] or None
    return None


def _not_local(environ: Environ) -> str | None:
    """Return why a request is not one of somebody on this machine, None if it is."""
    peer = environ["REMOTE_ADDR"]  # "" on a unix socket, whose file says who may connect
    if peer and not is_loopback(peer):
        return "Without admin.token in the config, only clients on the server's own machine may see this."
    if any(name in _FORWARDED or name.startswith(_FORWARDED_PREFIX) for name in environ):
        return "This request came through a proxy; set admin.token in the config, so that it can be allowed."
    if peer and not _names_this_machine(environ.get("HTTP_HOST", "")):
        # A page of another site, whose name was made to lead here ("DNS rebinding"), must not read this.
        return "Ask for localhost or an IP address, or set admin.token in the config."
    return None


def is_loopback(address: str) -> bool:
    """Tell whether a peer's address is one of the machine's own."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback


def _names_this_machine(host: str) -> bool:
    name, _ = split_host(host)
    name = name.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return not host  # HTTP/1.0, which no browser speaks
    return True
