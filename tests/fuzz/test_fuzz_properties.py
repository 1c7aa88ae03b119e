"""Properties of any sequence of requests, and of any bytes at all.

The examples are the same in every run; ``make fuzz`` is for finding new ones.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reader_agreement import check_chunks, check_head, cuts_of, pieces
from wire_agreement import POLICIES, Machine, check_connection

sys.path.append(str(Path(__file__).parent.parent / "worker"))
from serving_harness import echo, serving

# The validator warns of methods that it does not know.
pytestmark = pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")

BOUNDED = settings(
    max_examples=100, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

TOKEN = st.text("abcXYZ019-!#$%&'*+.^`|~", min_size=1, max_size=8)
VALUE = st.text("abc 019\t\"',;:=/\\\xe9\xff", max_size=12)
# Those that mean something to the server are chosen by the sequence.
NAME = st.text("abcXYZ019-", min_size=1, max_size=8).map("X-{}".format)
CUTS = st.lists(st.integers(0, 5000), max_size=8)


@dataclass
class Valid:
    """A valid request, and what the application must see of it."""

    wire: bytes
    method: str
    path: str
    body: bytes
    ends: bool
    """Is the end of the answer the end of the connection?"""


@st.composite
def requests(draw: Any) -> Valid:
    method = draw(st.sampled_from(["GET", "POST", "HEAD", "BREW", "OPTIONS"]))
    path = "/" + draw(st.text("ab/.;@|", max_size=8))
    target = (
        path
        + draw(st.sampled_from(["", "%20", "%c3%A9"]))
        + draw(st.sampled_from(["", "?", "?c", "?a=%&b=?"]))
    )
    form = draw(st.sampled_from(["{}", "http://host:80{}", "HTTPS://[::1]{}"]))
    modern = draw(st.booleans())
    fields = [("Host", draw(st.sampled_from(["a", "a.example:80", "[::1]:1"])))]
    fields += draw(st.lists(st.tuples(NAME, VALUE) | PROXIED, max_size=3))
    fields += [("Cookie", cookie) for cookie in draw(st.lists(st.sampled_from(["a=1", "b=2"]), max_size=2))]
    if not modern:
        fields.append(("Connection", "keep-alive"))
    body = draw(st.binary(max_size=60) | st.just(b"spooled" * 28))
    framing = draw(st.sampled_from(["none", "length", "chunked"] if modern else ["none", "length"]))
    framed = body
    if framing == "none":
        body = framed = b""
    elif framing == "length":
        fields.append(("content-length", f"{draw(st.sampled_from(['', '00']))}{len(body)}"))
    else:
        fields.append(("transfer-encoding", "Chunked"))
        framed = b"".join(draw(chunked(part)) for part in pieces(body, draw(CUTS))) + draw(last_chunks())
    fields = draw(st.permutations(fields))
    empty_lines = draw(st.sampled_from(["", "", "\r\n"]))
    lines = [f"{method} {form.format(target)} HTTP/1.{int(modern)}"]
    lines += [name + ":" + draw(st.sampled_from(["", " ", "\t "])) + value for name, value in fields]
    head = empty_lines + "\r\n".join([*lines, "", ""])
    seen = path + target.removeprefix(path).partition("?")[0].replace("%20", " ").replace(
        "%c3%A9", "\xc3\xa9"
    )
    ends = not modern and target.endswith("?c") and method != "HEAD"
    return Valid(head.encode("latin-1") + framed, method, seen, body, ends)


@st.composite
def chunked(draw: Any, data: bytes) -> bytes:
    size = draw(st.sampled_from(["%x", "%X", "000%x"])) % len(data)
    extension = draw(st.sampled_from(["", ";a", ";a=b", ' ; a = "\\"b"', ";a;b"]))
    return f"{size}{extension}\r\n".encode() + data + b"\r\n"


def last_chunks() -> st.SearchStrategy[bytes]:
    return st.sampled_from([b"0\r\n\r\n", b"000;a\r\n\r\n", b"0\r\nX-Sum: 1\r\nX-B:\r\n\r\n"])


PROXIED = st.sampled_from(
    [
        ("X-Forwarded-For", "192.0.2.7, 10.0.0.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "b:1, c"),
        ("X-Forwarded-Prefix", "/a%20b/"),
        ("Forwarded", 'for="[2001:db8::1]:5";proto=https, for=_x;host="d:2"'),
        ("X-Request-ID", "abc-1"),
        ("X_Role", "admin"),
    ]
)
INTRODUCTIONS = st.sampled_from(
    [
        b"PROXY TCP4 10.0.0.7 10.0.0.8 5 80\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\x0a\0\0\7\x0a\0\0\x08\0\5\0\x50\4\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"PROXY TCP6 ::1",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ]
)

SEQUENCES = st.lists(requests(), min_size=1, max_size=4)


@st.composite
def mutations(draw: Any) -> bytes:
    """Return what was a valid sequence before a few bytes were deleted, replaced, inserted or repeated."""
    data = bytearray(b"".join(request.wire for request in draw(SEQUENCES)))
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 6))
        inserted = draw(
            st.one_of(
                st.binary(max_size=2),
                st.sampled_from(
                    [b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b",", b"0", b"%", b"\r\n\r\n", b"a" * 300]
                ),
                st.just(bytes(data[at : at + 40])),
            )
        )
        data[at : at + length] = inserted
    return bytes(data[: draw(st.none() | st.integers(0, len(data)))])


@pytest.fixture(scope="module")
def machines() -> Iterator[dict[str, Machine]]:
    made = {kind: Machine.of_kind(kind) for kind in POLICIES}
    yield made
    for machine in made.values():
        machine.close()


@pytest.fixture(scope="module")
def machine(machines: dict[str, Machine]) -> Machine:
    return machines["connection"]


@given(sequence=SEQUENCES, cuts=CUTS)
@BOUNDED
def test_valid_requests_in_any_cuts_are_what_they_are_whole(
    machine: Machine, sequence: list[Valid], cuts: list[int]
) -> None:
    outcome = check_connection(machine, b"".join(request.wire for request in sequence), cuts)
    answered = next((at + 1 for at, request in enumerate(sequence) if request.ends), len(sequence))
    seen = [(env["REQUEST_METHOD"], env["PATH_INFO"], body) for env, body in outcome.requests]
    assert seen == [(request.method, request.path, request.body) for request in sequence[:answered]]
    assert outcome.statuses() == [200] * answered


@given(kind=st.sampled_from(list(POLICIES)), introduction=INTRODUCTIONS, data=mutations(), cuts=CUTS)
@settings(BOUNDED, max_examples=200)
def test_any_mutation_is_answered_or_closed_and_in_pieces_alike(
    machines: dict[str, Machine], kind: str, introduction: bytes, data: bytes, cuts: list[int]
) -> None:
    check_connection(machines[kind], introduction + data if kind == "introduced" else data, cuts)
    check_head(data, cuts)
    check_chunks(data.partition(b"\r\n\r\n")[2], cuts)


@given(data=st.lists(mutations(), min_size=10, max_size=10))
@settings(BOUNDED, max_examples=10)
def test_mutations_do_not_harm_a_real_server(real: Any, data: list[bytes]) -> None:
    for mutation in data:
        with socket.create_connection(real.address, timeout=20) as client:
            client.sendall(mutation)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    assert real.connect().get("/fine")[2] == b"GET /fine "
    assert {name for name, *_ in real.log.lines} <= {"request-refused"}


@pytest.fixture(scope="module")
def real() -> Iterator[Any]:
    with serving(echo) as server:
        yield server


CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("found", CORPUS, ids=lambda path: path.name)
def test_what_fuzzing_has_found_stays_mended(machines: dict[str, Machine], found: Path) -> None:
    """Each file is an input of the target its name begins with; see ``fuzz_target``."""
    data = found.read_bytes()
    cuts, kind = cuts_of(data), found.name.partition("-")[0]
    if kind in machines:
        check_connection(machines[kind], data[1:], cuts)
    check_head(data[1:], cuts)
    check_chunks(data[1:], cuts)
