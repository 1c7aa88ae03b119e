"""TLS of the real command: real clients, the certificate across reloads, tickets across workers, keys in memory."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S, Server, exchange, wait_for
from pki import Pki

APP = """
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        open("entered", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [("X-Pid", str(os.getpid()))])
    return [environ["wsgi.url_scheme"].encode(), b" ", environ["wsgi.input"].read()]
"""
CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
tls: {cert: server.pem, key: server.key}
"""
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
WAIT = GET.replace(b"/ ", b"/wait ", 1)


@pytest.fixture
def folder(server: Server, pki: Pki) -> Path:
    for file in pki.folder.iterdir():
        shutil.copy(file, server.folder)
    return server.folder


@contextmanager
def connected(port: int, context: ssl.SSLContext, session: Any = None) -> Iterator[ssl.SSLSocket]:
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    with context.wrap_socket(plain, server_hostname="localhost", session=session) as sock:
        yield sock


def get(sock: ssl.SSLSocket, request: bytes = GET) -> bytes:
    """Return one response whose body is short."""
    sock.sendall(request)
    answer = b""
    while not answer.endswith(b"https "):
        data = sock.recv(65536)
        assert data
        answer += data
    return answer


def name_of(sock: ssl.SSLSocket) -> str:
    certificate: Any = sock.getpeercert()
    return dict(pair[0] for pair in certificate["subject"])["commonName"]


def test_curl_and_s_client(server: Server, folder: Path) -> None:
    server.serve(CONFIG, APP)
    (folder / "upload").write_bytes(os.urandom(1_000_000))
    url = f"https://localhost:{server.port}/"
    curl = [
        "curl",
        "-sS",
        "--cacert",
        "ca.pem",
        url,
        url,
        "--data-binary",
        "@upload",
        "-w",
        "%{num_connects} ",
    ]
    done = subprocess.run(curl, cwd=folder, capture_output=True, timeout=PATIENCE_S, check=True)
    upload = (folder / "upload").read_bytes()
    assert done.stdout == b"https " + upload + b"1 https " + upload + b"0 "
    s_client = ["openssl", "s_client", "-connect", f"localhost:{server.port}", "-CAfile", "ca.pem", "-tls1_2"]
    talk = [*s_client, "-verify_return_error", "-ign_eof"]
    request = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    done = subprocess.run(
        talk, cwd=folder, input=request, capture_output=True, timeout=PATIENCE_S, check=True
    )
    assert b"Compression: NONE" in done.stdout
    assert b"https " in done.stdout
    # A line with an R asks for a renegotiation, which is refused without harm.
    again = subprocess.run(
        s_client, cwd=folder, input=b"R\n", capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert b"no renegotiation" in again.stderr
    assert server.stop() == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_of_one_worker_resumes_with_another(
    server: Server, folder: Path, pki: Pki, version: ssl.TLSVersion
) -> None:
    server.serve(CONFIG, APP)
    context = pki.client_context()
    context.maximum_version = version
    with connected(server.port, context) as sock:
        get(sock)
        session = sock.session
    with connected(server.port, context, session) as waiting:
        waiting.sendall(WAIT)
        wait_for((folder / "entered").exists, "the request")
        # While one worker is busy, the other one takes new connections.
        with connected(server.port, context, session) as other:
            answers = [get(other)]
            (folder / "go").touch()
            answers.append(get(waiting, b""))
            assert waiting.session_reused
            assert other.session_reused
    assert len({re.findall(rb"X-Pid: (\d+)", answer)[0] for answer in answers}) == 2


def test_a_reload_takes_a_new_certificate_and_a_bad_one_changes_nothing(
    server: Server, folder: Path, pki: Pki
) -> None:
    server.serve(CONFIG, APP)
    context = pki.client_context()
    with connected(server.port, context) as old:
        assert (get(old).split()[1], name_of(old)) == (b"200", "server")
        for file in ("second.pem", "second.key"):
            shutil.copy(folder / file, folder / file.replace("second", "server"))
        assert server.reload() == "reloaded"

        def served_with() -> str:
            with connected(server.port, context) as new:
                assert get(new).split()[1] == b"200"
                return name_of(new)

        # A last worker of the generation before may yet answer.
        wait_for(lambda: served_with() == "second", "the new certificate")
        shutil.copy(folder / "client.key", folder / "server.key")
        mark = server.mark()
        assert server.reload() == "failed"
        told = (
            "app.yaml:5:30: tls.key: expected the private key of the certificate in server.pem, got another"
        )
        assert told in server.log[mark:]
        assert served_with() == "second"
    assert server.stop() == 0


def test_a_request_that_runs_through_a_reload_is_answered(server: Server, folder: Path, pki: Pki) -> None:
    server.serve(CONFIG.replace("workers: 2", "workers: 1"), APP)
    with connected(server.port, pki.client_context()) as old:
        old.sendall(WAIT)
        wait_for((folder / "entered").exists, "the request")
        for file in ("second.pem", "second.key"):
            shutil.copy(folder / file, folder / file.replace("second", "server"))
        assert server.reload() == "reloaded"
        with connected(server.port, pki.client_context()) as new:
            assert (get(new).split()[1], name_of(new)) == (b"200", "second")
        (folder / "go").touch()
        answer = exchange(old, b"")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"https ")


def test_the_key_may_be_for_root_alone(public_server: Server, pki: Pki) -> None:
    folder = public_server.folder
    for name in ("server.pem", "server.key"):
        shutil.copy(pki.path(name), folder)
    os.chmod(folder / "server.key", 0o600)
    public_server.serve(CONFIG + "user: nobody\n", APP)
    with connected(public_server.port, pki.client_context()) as sock:
        assert b"200 OK" in get(sock)
    assert public_server.stop() == 0


def private_number(path: Path) -> bytes:
    """Return the secret of an EC key as it is in memory."""
    text = subprocess.run(
        ["openssl", "ec", "-in", path, "-text", "-noout"], capture_output=True, check=True
    ).stdout
    digits = re.search(rb"priv:([\s0-9a-f:]+)pub:", text)
    assert digits
    return bytes.fromhex(re.sub(rb"[\s:]", b"", digits[1]).decode()).lstrip(b"\0")[::-1]


def has_in_memory(pid: int, secret: bytes) -> bool:
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if rights.startswith("rw") and start < 1 << 63:
                try:
                    memory.seek(start)
                    if secret in memory.read(end - start):
                        return True
                except OSError:
                    continue
    return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into the memory of others")
def test_a_pool_has_no_key_of_another(server: Server, folder: Path, pki: Pki) -> None:
    server.serve(
        """
        workers: 1
        pools:
          web: {app: "myapp:app", listen: 127.0.0.1:0, tls: {cert: server.pem, key: server.key}}
          plain: {app: "myapp:app", listen: "unix:plain.sock"}
          other: {app: "myapp:app", listen: "unix:other.sock", tls: {cert: second.pem, key: second.key}}
        """,
        APP,
    )
    ours, others = (private_number(folder / f"{name}.key") for name in ("server", "second"))
    holders = {
        secret: {
            re.sub(r".*: (mold|worker|master) (\w+).*", r"\1 \2", title_of(pid))
            for pid in family(server)
            if has_in_memory(pid, secret)
        }
        for secret in (ours, others)
    }
    assert holders[ours] >= {"mold web", "worker web"}
    assert not {name for name in holders[ours] if re.search("plain|other", name)}
    assert not {name for name in holders[others] if re.search("plain|web", name)}


def family(server: Server) -> list[int]:
    return [*server.molds(), *server.workers()]


def title_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def test_plain_and_encrypted_side_by_side(server: Server, folder: Path, pki: Pki) -> None:
    server.serve(
        CONFIG.replace(
            "listen: 127.0.0.1:0", 'listen: [127.0.0.1:0, {address: "unix:plain.sock", tls: false}]'
        ),
        APP.replace('b" "', 'b"."'),
    )
    with connected(server.port, pki.client_context()) as sock:
        sock.sendall(GET)
        assert b"https." in exchange(sock, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    with socket.socket(socket.AF_UNIX) as plain:
        plain.connect(str(folder / "plain.sock"))
        assert b"http." in exchange(plain, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))


@pytest.mark.measured
def test_a_service_cannot_have_tls(server: Server, folder: Path) -> None:
    server.configure(
        CONFIG.replace("myapp:app", "myapp:Service"),
        """
        from prefork.worker.server import Server

        class Service(Server):
            pass
    """,
    )
    server.start()
    assert server.wait() == 3
    assert "cannot use myapp:Service with tls: only the web server speaks it" in server.log
