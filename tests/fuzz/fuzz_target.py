"""The coverage-guided fuzz targets, run by ``make fuzz``: ``fuzz_target.py TARGET SECONDS FOLDER``.

The targets are the readers ``head`` and ``chunks``, and servers: ``connection``, ``tls``, and behind proxies
``proxied``, ``forwarded`` and ``introduced``. Each input begins with a byte that decides where the rest is cut; with
TLS more bytes decide what is done to the records, see ``tls_agreement``. An input of ``responses`` is what an
application does. Inputs worth keeping grow in ``FOLDER/<target>``; one that breaks a rule is
written to ``FOLDER/find-<target>-…``, and once mended it belongs into ``corpus/``, which the ordinary tests replay.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import atheris
from hypothesis import given, settings

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

with atheris.instrument_imports(include=["prefork.http", "prefork.worker"]):
    import tls_agreement
    import wire_agreement
    from peer_reading import check_against_h11
    from pki import Pki
    from reader_agreement import check_chunks, check_head, cuts_of
    from test_fuzz_applications import SCRIPTS, Application, Script, check_script

CHUNKED = b"POST /?c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
FORWARDED = [
    b"X-Forwarded-For: 192.0.2.7, 10.0.0.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b:1",
    b"X-Forwarded-Port: 80\r\nX-Forwarded-Prefix: /a%20b/\r\nX_Role: c",
    b'Forwarded: for="[2001:db8::1]:5";proto=https, for=_x;host="d:2"',
]
INTRODUCTIONS = [
    b"PROXY TCP4 10.0.0.7 10.0.0.8 5 80\r\n",
    b"PROXY TCP6 ::1 2001:db8::2 5 80\r\n",
    b"PROXY UNKNOWN ::1\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\x0a\0\0\7\x0a\0\0\x08\0\5\0\x50\4\0\0",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + bytes(36),
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
]
COOKIES = [
    b"Cookie: a=1; b=2",
    b"Cookie:a\r\nX-A: b\r\ncookie: c",
    b"Cookie: a\r\nCookie: b",
    b"X-A: b\r\nCookie:\t\xe9 ",
    b"Cookie: a\n",
    b"Cookie : a",
    b"Cookie: a\r\n b",
    b"Cookie: a\rCookie: b",
]
NEXT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def head(data: bytes) -> None:
    check_head(data[1:], cuts_of(data))
    check_against_h11(data[1:])


def chunks(data: bytes) -> None:
    check_chunks(data[1:], cuts_of(data))


def connection(kind: str) -> Callable[[bytes], None]:
    machine = wire_agreement.Machine.of_kind(kind)

    def target(data: bytes) -> None:
        wire_agreement.check_connection(machine, data[1:], cuts_of(data))

    return target


@cache
def tls_machines() -> tls_agreement.TlsMachines:
    return tls_agreement.TlsMachines(Pki(Path(tempfile.mkdtemp(prefix="fuzz-pki-"))))


def tls(data: bytes) -> None:
    tls_agreement.check_tls(tls_machines(), data)


def responses() -> Callable[[bytes], object]:
    application = Application()
    machine = wire_agreement.Machine(app=application)

    @given(script=SCRIPTS)
    @settings(database=None, deadline=None)
    def target(script: Script) -> None:
        check_script(application, machine, script)

    chosen: Callable[[bytes], object] = target.hypothesis.fuzz_one_input
    return lambda data: chosen(data[1:])


def seeds(name: str) -> list[bytes]:
    """Return what to begin with: the cases of the unit tests."""
    sys.path.append(str(HERE.parent / "http"))
    import test_http_chunked
    import test_http_head

    tables = (test_http_head.ACCEPTED, test_http_head.REFUSED)
    heads = [case[0] for table in tables for case in table.values()]
    bodies = [*test_http_chunked.ACCEPTED, *(case[0] for case in test_http_chunked.REFUSED.values())]
    heads += [NEXT[:-2] + field + b"\r\n\r\n" for field in COOKIES]
    connections = heads + [CHUNKED + body + NEXT for body in bodies]
    told = [NEXT[:-2] + field + b"\r\n\r\n" + NEXT for field in FORWARDED]
    introduced = [introduction + NEXT for introduction in INTRODUCTIONS]
    if name == "tls":
        return tls_agreement.seeds(tls_machines(), [NEXT, CHUNKED + bodies[0] + NEXT, *connections[::8]])
    cut = {
        "responses": [bytes(range(start, start + 64)) for start in (0, 64, 128, 192)],
        "head": heads,
        "chunks": bodies,
        "connection": connections,
        "proxied": connections + told,
        "forwarded": connections + told,
        "introduced": introduced,
    }
    return [b"\7" + seed for seed in cut[name]]


def main(name: str, seconds: str, folder: str) -> None:
    corpus = Path(folder) / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-dict={HERE / 'dictionary.txt'}",
        f"-max_total_time={seconds}",
        f"-artifact_prefix={folder}/find-{name}-",
        "-max_len=900",
        "-len_control=20",
        "-print_final_stats=1",
    ]
    if name == "responses":
        target = responses()
    else:
        target = {"head": head, "chunks": chunks, "tls": tls}.get(name) or connection(name)
    atheris.Setup([sys.argv[0], *options, str(corpus)], target)
    atheris.Fuzz()


main(*sys.argv[1:])
