"""What TLS adds to the environ: how the connection is protected, and who the client is; runs only in a worker."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ssl import DER_cert_to_PEM_cert, SSLObject
from typing import Any, cast

from prefork.worker.exchange import Environ

Name = Iterable[Iterable[tuple[str, str]]]

# The short names of RFC 4514 §3, and two that everybody writes so; by the names that OpenSSL has.
_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
    "surname": "SN",
    "givenName": "GN",
}
_SPECIAL = re.compile(r"""(?P<mark>["+,;<>\\]|^[ #]| \Z)|[^ -~]""")


def tls_environ(tls: SSLObject) -> Environ:
    """Return the variables of an established connection, named as by Apache's mod_ssl."""
    cipher = tls.cipher()
    environ: Environ = {
        "HTTPS": "on",
        "SSL_PROTOCOL": tls.version() or "",
        "SSL_CIPHER": cipher[0] if cipher else "",
        "SSL_CLIENT_VERIFY": "NONE",
    }
    certificate = tls.getpeercert(binary_form=True)
    if certificate is not None:
        # OpenSSL has verified it, or the handshake would have failed.
        subject: Any = (tls.getpeercert() or {}).get("subject", ())
        environ["SSL_CLIENT_VERIFY"] = "SUCCESS"
        environ["SSL_CLIENT_S_DN"] = distinguished_name(cast(Name, subject))
        environ["SSL_CLIENT_CERT"] = DER_cert_to_PEM_cert(certificate)
    return environ


def distinguished_name(name: Name) -> str:
    """Return a name as text, the most specific part first. See RFC 4514.

    What is not ASCII is escaped as ``\\C3\\A9``, so that one subject has one form, and no form breaks a line.
    """
    parts = ["+".join(_attribute(kind, value) for kind, value in relative) for relative in name]
    return ",".join(reversed(parts))


def _attribute(kind: str, value: str) -> str:
    if kind[
        0
    ].isdigit():  # An object identifier without a name: the value is given as BER, here a UTF8String.
        data = value.encode()
        size = len(data)
        length = size.to_bytes((size.bit_length() + 7) // 8 or 1, "big")
        if size > 0x7F:
            length = bytes([0x80 | len(length)]) + length
        return f"{kind}=#0c{length.hex()}{data.hex()}"
    return f"{_SHORT.get(kind, kind)}={_SPECIAL.sub(_escaped, value)}"


def _escaped(found: re.Match[str]) -> str:
    if found["mark"]:
        return "\\" + found["mark"]
    return "".join(f"\\{byte:02X}" for byte in found[0].encode())
