"""The part of the schema that says where a server listens, and who may see how it does."""

# ruff: noqa: RUF009 (key() returns a dataclass field)

from __future__ import annotations

from dataclasses import dataclass, replace

from prefork.config.address import FORMS, Address, parse
from prefork.config.composites import REQUIRED, ListOf, Section, Shorthand, Switch, key
from prefork.config.kinds import Boolean, Choice, Integer, Text
from prefork.config.names import ListenAddress
from prefork.config.nodes import Node, Report, Scalar
from prefork.config.quantities import Mode

_PATH = Text("a path", r"[^\0]+")
_ACCOUNT = Text("a name or a number", r"[A-Za-z0-9_][A-Za-z0-9_.-]*", any_scalar=True)
_LINE = Text("one line of text", r"[^\0\r\n]*", any_scalar=True)
_key = key  # for the section that has a key called key


@dataclass(frozen=True)
class Secret(Text):
    """Text that is printed nowhere."""

    def read(self, node: Node, path: str, report: Report) -> str | None:
        """Read the text; remember that it is a secret, wherever it came from."""
        report.secrets.add(path)
        return super().read(replace(node, secret=True) if isinstance(node, Scalar) else node, path, report)


@dataclass(frozen=True)
class Tls:
    """The certificate of a listener, and what clients must have."""

    cert: str | None = _key(
        None, _PATH, "PEM file of the certificate, followed by its chain; perhaps of the private key, too."
    )
    key: str | None = _key(
        None, _PATH, "PEM file of the private key, without a passphrase; `cert` when unset."
    )
    client_ca: str | None = _key(None, _PATH, "PEM file of the authorities that sign clients' certificates.")
    client_auth: str = _key(
        "off", Choice(("off", "optional", "required")), "Ask clients for a certificate, or insist on one."
    )
    min_version: str = _key("1.2", Choice(("1.2", "1.3")), "The oldest version of TLS, in quotes.")
    ciphers: str | None = _key(
        None,
        _LINE,
        "Ciphers of TLS 1.2 in OpenSSL's notation; when unset those with forward secrecy and AEAD.",
    )


@dataclass(frozen=True)
class Listen:
    """One address, and how its socket is made."""

    address: str = key(REQUIRED, ListenAddress(), f"Where to listen: {FORMS}.")
    mode: int | None = key(None, Mode(), 'File mode of a unix socket; "0660" when unset.')
    owner: str | None = key(
        None, _ACCOUNT, "Owner of a unix socket; the user that starts prefork when unset."
    )
    group: str | None = key(
        None, _ACCOUNT, "Group of a unix socket; the group that starts prefork when unset."
    )
    backlog: int = key(
        2048, Integer(1, 65535), "Connections that may wait for a worker; net.core.somaxconn caps it."
    )
    proxy_protocol: bool = key(
        False,
        Boolean(),
        "Connections begin with a PROXY header, of version 1 or 2, from a peer in `proxy.trust`; others are "
        "closed.",
    )
    tls: Tls | bool | None = key(
        None,
        Switch(Section(Tls)),
        "Keys that differ from `tls` of the pool; true: just that; false: no TLS here. As the pool when unset.",
    )

    of_admin: bool = False
    """It is the admin process's."""

    @property
    def parsed(self) -> Address:
        """The address as a value; ``address`` is its normal form."""
        return parse(self.address)


@dataclass(frozen=True)
class Admin:
    """The listener of the admin process, and who may see what."""

    listen: tuple[Listen, ...] = key(
        ["127.0.0.1:9180"],
        ListOf(Shorthand(Section(Listen), "address"), at_least=1),
        "Where to listen: as `listen` of a pool, without `proxy_protocol`.",
    )
    token: str | None = key(
        None,
        Secret(
            "a secret of 8 or more letters, digits and signs, without spaces", r"[!-~]{8,}", any_scalar=True
        ),
        "What is not open needs this: as bearer token, or as the password of any user. Without it, a client on the "
        "same machine.",
    )
    open: tuple[str, ...] = key(
        ["healthz", "readyz", "metrics"],
        ListOf(Choice(("healthz", "readyz", "metrics", "status", "page"))),
        "What everybody may see who can connect.",
    )
    user: str | None = None
    """As whom it runs: the server's user, else that of the first pool that has one."""
    group: str | None = None
