"""The section ``tls``: what listeners inherit, and what each mistake says, place and all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from pki import Pki

from prefork.config import Loaded, Tls, load
from prefork.config.effective import render
from prefork.errors import ConfigError


@pytest.fixture(autouse=True)
def _in_folder_of_certificates(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in pki.folder.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)


def read(text: str) -> Loaded:
    Path("app.yaml").write_text(f"app: a:b\n{text}")
    return load(["app.yaml"], environ={})


PAIR = "cert: server.pem, key: server.key"
MISTAKES = {
    "{cert: nope.pem, key: server.key}": "2:13: tls.cert: cannot read nope.pem: No such file or directory",
    "{cert: server.pem, key: nope.key}": "2:30: tls.key: cannot read nope.key: No such file or directory",
    "{cert: server.pem, key: .}": "2:30: tls.key: expected a regular file, got ., which is none",
    "{cert: server.pem}": "2:6: tls.key: missing: expected a path, since server.pem has no private key",
    "{key: server.key}": "2:6: tls.cert: missing: expected the path of a certificate",
    "{}": "2:6: tls.cert: missing: expected the path of a certificate",
    "{cert: server.key, key: server.key}": "2:13: tls.cert: expected certificates in PEM form "
    "(-----BEGIN CERTIFICATE-----), got none in server.key",
    "{cert: server.der, key: server.key}": "2:13: tls.cert: expected certificates in PEM form "
    "(-----BEGIN CERTIFICATE-----), got none in server.der",
    "{cert: server.pem, key: server.pem}": "2:30: tls.key: expected a private key in PEM form "
    "(-----BEGIN PRIVATE KEY-----), got none in server.pem",
    "{cert: server.pem, key: client.key}": "2:30: tls.key: expected the private key of the certificate in "
    "server.pem, got another one in client.key",
    "{cert: server.pem, key: rsa.key}": "2:30: tls.key: expected the private key of the certificate in "
    "server.pem, got another one in rsa.key",
    "{cert: server.pem, key: locked.key}": "2:30: tls.key: expected a private key without a passphrase, got "
    "locked.key, which has one; `openssl pkey -in locked.key -out NEW` takes it off",
    f"{{{PAIR}, client_auth: required}}": "2:6: tls.client_ca: missing: client_auth is required; "
    "expected a path",
    f"{{{PAIR}, client_ca: ca.pem}}": "2:53: tls.client_ca: expected client_auth: optional or required "
    "beside it, got off",
    f"{{{PAIR}, client_auth: optional, client_ca: ca.key}}": "2:76: tls.client_ca: expected certificates in "
    "PEM form (-----BEGIN CERTIFICATE-----), got none in ca.key",
    f"{{{PAIR}, client_auth: yes}}": '2:55: tls.client_auth: expected off, optional or required, got "yes"',
    f"{{{PAIR}, ciphers: ROT13}}": "2:51: tls.ciphers: expected ciphers in the notation of OpenSSL, "
    'got "ROT13", of which it knows none',
    f"{{{PAIR}, min_version: 1.2}}": '2:55: tls.min_version: expected 1.2 or 1.3, got 1.2; quote it: "1.2"',
    f"{{{PAIR}, crt: x}}": '2:42: tls.crt: unknown key; did you mean "cert"?',
}


@pytest.mark.parametrize(("tls", "told"), MISTAKES.items())
def test_mistakes(pki: Pki, tls: str, told: str) -> None:
    if "der" in tls:
        pki.openssl("x509", "-in", "server.pem", "-outform", "der", "-out", os.path.abspath("server.der"))
    elif "locked" in tls:
        locked = ("-aes256", "-passout", "pass:x", "-out", os.path.abspath("locked.key"))
        pki.openssl("pkey", "-in", "server.key", *locked)
    elif "rsa" in tls:
        pki.openssl("genrsa", "-out", os.path.abspath("rsa.key"), "2048")
    with pytest.raises(ConfigError) as caught:
        read(f"tls: {tls}\n")
    assert str(caught.value) == f"app.yaml:{told}"


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        (
            "tls: true",
            "2:30: listen.tls: expected a mapping with cert, or tls of the pool to inherit, got true",
        ),
        ("tls: on", '2:30: listen.tls: expected true, false or a mapping, got "on"'),
        ("tls: {key: server.key}", "2:30: listen.tls.cert: missing: expected the path of a certificate"),
    ],
)
def test_mistakes_of_a_listener(listen: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"listen: {{address: 8443, {listen}}}\n")
    assert str(caught.value) == f"app.yaml:{told}"


def test_a_mistake_that_two_listeners_inherit_counts_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read("listen: [8443, 8444]\ntls: {cert: server.pem, key: client.key}\n")
    assert len(str(caught.value).splitlines()) == 1


def test_listeners_inherit_what_they_do_not_say() -> None:
    loaded = read(
        f"tls: {{{PAIR}, min_version: '1.3'}}\n"
        "listen:\n"
        "  - 8443\n"
        "  - {address: 8444, tls: true}\n"
        "  - {address: 8445, tls: {cert: second.pem, key: second.key}}\n"
        "  - {address: 8446, tls: {client_auth: optional, client_ca: ca.pem, min_version: '1.2'}}\n"
        "  - {address: 8000, tls: false}\n"
    )
    (pool,) = loaded.config.pools
    base = Tls(cert="server.pem", key="server.key", min_version="1.3")
    assert [listen.tls for listen in pool.listen] == [
        base,
        base,
        Tls(cert="second.pem", key="second.key", min_version="1.3"),
        Tls(cert="server.pem", key="server.key", client_auth="optional", client_ca="ca.pem"),
        False,
    ]
    # What `prefork check` prints is the same config.
    Path("again.yaml").write_text(render(loaded))
    assert load(["again.yaml"], environ={}).config.digest == loaded.config.digest


def test_without_tls_no_listener_has_any() -> None:
    assert [listen.tls for listen in read("listen: [8000, 8001]\n").config.pools[0].listen] == [None, None]
