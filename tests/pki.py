"""Keys and certificates for tests, made by the command openssl."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from prefork.config import Tls


class Pki:
    """A folder with an authority ``ca`` and what it signed: ``server``, ``second`` (for localhost), ``client``.

    Of each there is ``NAME.pem`` and ``NAME.key``. ``stranger`` is a client that another authority signed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("ca", "elsewhere"):
            self._new(name, f"/CN=Test {name}", "-x509", "-days", "2")
        for name in ("server", "second"):
            self._sign(name, f"/CN={name}", "ca", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        self._sign("client", "/C=NL/O=Jansen, Zn./CN=Zoë #1", "ca", "extendedKeyUsage=clientAuth")
        self._sign("stranger", "/CN=client", "elsewhere", "extendedKeyUsage=clientAuth")

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def openssl(self, *arguments: str) -> None:
        subprocess.run(("openssl", *arguments), cwd=self.folder, check=True, capture_output=True, timeout=60)

    def tls(self, name: str = "server", **keys: str) -> Tls:
        """Return the section ``tls`` of a config."""
        return Tls(cert=self.path(f"{name}.pem"), key=self.path(f"{name}.key"), **keys)

    def client_context(self, certificate: str = "", *, newest: str = "1.3") -> ssl.SSLContext:
        """Return the context of a client that trusts ``ca``."""
        context = ssl.create_default_context(cafile=self.path("ca.pem"))
        context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[newest]
        if certificate:
            context.load_cert_chain(self.path(f"{certificate}.pem"), self.path(f"{certificate}.key"))
        return context

    def _new(self, name: str, subject: str, *more: str) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")
        self.openssl("req", *key, "-out", f"{name}.pem", "-utf8", "-subj", subject, *more)

    def _sign(self, name: str, subject: str, issuer: str, extension: str) -> None:
        self._new(name, subject)
        (self.folder / "extensions").write_text(extension)
        issued_by = ("-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial")
        request = ("x509", "-req", "-in", f"{name}.pem", "-out", f"{name}.pem.new", "-days", "2")
        self.openssl(*request, *issued_by, "-extfile", "extensions")
        (self.folder / f"{name}.pem.new").rename(self.folder / f"{name}.pem")
