"""A TLS context from the files that a config names: hardened, or a mistake that names the key.

Runs in the master, and in ``prefork check``; imported only where there is TLS.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefork.config.listening import Tls

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
"""Of TLS 1.2, when the config names none: authenticated encryption with forward secrecy."""

VERSIONS: Mapping[str, ssl.TLSVersion] = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH: Mapping[str, ssl.VerifyMode] = {
    "off": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class TlsMistake(Exception):
    """A key of the section ``tls`` is of no use: which, and why."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"tls.{key}: {message}")
        self.key = key
        self.message = message


def make_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a listener. Raises ``TlsMistake``.

    One is made for all workers of a generation: they share the keys of its session tickets.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[tls.min_version]
    # Python has most of these by default; here they do not depend on that.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.set_ciphers(tls.ciphers or CIPHERS)
    except ssl.SSLError:
        raise TlsMistake(
            "ciphers",
            f'expected ciphers in the notation of OpenSSL, got "{tls.ciphers}", of which it knows none',
        ) from None
    _load_certificate(context, tls)
    context.verify_mode = _CLIENT_AUTH[tls.client_auth]
    if tls.client_auth != "off":
        if tls.client_ca is None:
            raise TlsMistake("client_ca", f"missing: client_auth is {tls.client_auth}; expected a path")
        _load_authorities(context, tls.client_ca, "client_ca")
    elif tls.client_ca is not None:
        raise TlsMistake("client_ca", "expected client_auth: optional or required beside it, got off")
    return context


def _load_certificate(context: ssl.SSLContext, tls: Tls) -> None:
    if tls.cert is None:
        raise TlsMistake("cert", "missing: expected the path of a certificate")
    _look_at(tls.cert, "cert")
    if tls.key is not None:
        _look_at(tls.key, "key")
    encrypted = False

    def no_passphrase() -> str:
        nonlocal encrypted
        encrypted = True
        return ""

    try:
        # Only OpenSSL reads the private key: it wipes the memory that it reads into.
        context.load_cert_chain(tls.cert, tls.key, no_passphrase)
    except (ssl.SSLError, OSError) as error:
        key = tls.key or tls.cert
        if encrypted:
            raise TlsMistake(
                "key" if tls.key else "cert",
                f"expected a private key without a passphrase, got {key}, which has one; "
                f"`openssl pkey -in {key} -out NEW` takes it off",
            ) from None
        reason = getattr(error, "reason", None) or str(error)
        if reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):  # the latter: of another algorithm
            raise TlsMistake(
                "key", f"expected the private key of the certificate in {tls.cert}, got another one in {key}"
            ) from None
        _load_authorities(
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls.cert, "cert"
        )  # says what is wrong with it
        if reason not in ("PEM lib", None) and "[SSL] PEM lib" not in reason:
            raise TlsMistake("cert", f"OpenSSL refuses {tls.cert}: {_in_words(reason)}") from None
        if tls.key is None:
            raise TlsMistake(
                "key", f"missing: expected a path, since {tls.cert} has no private key"
            ) from None
        raise TlsMistake(
            "key", f"expected a private key in PEM form (-----BEGIN PRIVATE KEY-----), got none in {key}"
        ) from None


def _load_authorities(context: ssl.SSLContext, path: str, key: str) -> None:
    _look_at(path, key)
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError):
        raise TlsMistake(
            key, f"expected certificates in PEM form (-----BEGIN CERTIFICATE-----), got none in {path}"
        ) from None


def _look_at(path: str, key: str) -> None:
    """See that a file is there and readable, and that reading it cannot block. Raises ``TlsMistake``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise TlsMistake(key, f"cannot read {path}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise TlsMistake(key, f"expected a regular file, got {path}, which is none")
    finally:
        os.close(fd)


def _in_words(reason: str) -> str:
    return reason.lower().replace("_", " ")
