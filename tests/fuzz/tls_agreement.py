"""What must be true of a connection with TLS, whatever its client sends and whatever happens to its records.

Used like ``wire_agreement``, on whose machine it stands. The client is OpenSSL between two buffers, and what it says
is cut, and damaged on the way, as the input decides.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pki import Pki
from reader_agreement import cuts_of, pieces
from wire_agreement import Machine, Outcome, check_alike, check_answers

from prefork.tls import make_context

VERSIONS = ("1.2", "1.3")
_OF_LISTENER = {"wsgi.url_scheme", "HTTPS", "SERVER_PORT"}

CHANGE, DROP, INSERT, END = range(4)


@dataclass(frozen=True)
class Damage:
    """What happens to the client's stream at one byte."""

    at: int
    kind: int
    value: int


class TlsMachines:
    """A server with TLS, and one without for comparison."""

    def __init__(self, pki: Pki) -> None:
        self.encrypted = Machine(tls=make_context(pki.tls()))
        self.plain = Machine()
        self.contexts = [pki.client_context(newest=version) for version in VERSIONS]

    def close(self) -> None:
        self.encrypted.close()
        self.plain.close()


class Client:
    """The client's side of TLS: bytes in, bytes out."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.established = False
        self.received = b""
        """The plaintext of the server."""
        self.sent = b""
        """All records, as they were before any damage."""
        self.ended = False
        """Has the server said that it sends no more?"""
        self.failed = False

    def say(self, plain: bytes = b"") -> bytes:
        """Return the next records: of the handshake until that is complete, then with ``plain``."""
        return self._records(partial(self._tls.write, plain) if self.established else self._shake_hands)

    def say_goodbye(self) -> bytes:
        return self._records(self._tls.unwrap)

    def _shake_hands(self) -> None:
        self._tls.do_handshake()
        self.established = True

    def _records(self, act: Callable[[], object]) -> bytes:
        try:
            act()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.failed = True
        records = self._outgoing.read()
        self.sent += records
        return records

    def hear(self, records: bytes) -> None:
        self._incoming.write(records)
        if not self.established:
            return
        try:
            while piece := self._tls.read(65536):
                self.received += piece
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError:
            self.failed = True


class Wire:
    """Carries the client's bytes, and does the damage."""

    def __init__(self, damages: Iterable[Damage]) -> None:
        self._damages = {damage.at: damage for damage in damages}
        self._carried = 0
        self.ended = False

    def carry(self, data: bytes) -> bytes:
        carried = bytearray()
        for byte in data:
            damage = self._damages.get(self._carried)
            self._carried += 1
            if self.ended or (damage and damage.kind == END):
                self.ended = True
            elif damage is None:
                carried.append(byte)
            elif damage.kind == CHANGE:
                carried.append(byte ^ damage.value)
            elif damage.kind == INSERT:
                carried += bytes([damage.value, byte])
        return bytes(carried)


def converse(
    machine: Machine,
    client: Client,
    plain: Sequence[bytes],
    *,
    damages: Iterable[Damage] = (),
    cuts: Iterable[int] = (),
    goodbye: bool = False,
) -> Outcome:
    """Shake hands, and send ``plain``, a record or more for each piece; return what it came to, decrypted."""
    outcome, wire = Outcome(), Wire(damages)
    heard = 0
    with machine.client(outcome) as sock:

        def deliver(records: bytes) -> bytes:
            nonlocal heard
            for piece in pieces(wire.carry(records), cuts):
                machine.deliver(sock, piece, outcome)
            answer, heard = outcome.answered[heard:], len(outcome.answered)
            return answer

        answer = deliver(client.say())
        while answer and not client.established and not client.failed:
            client.hear(answer)
            answer = deliver(client.say())
        if client.established:
            client.hear(answer)
            said = [*map(client.say, plain), client.say_goodbye() if goodbye else b""]
            client.hear(deliver(b"".join(said)))
    client.hear(outcome.answered[heard:])
    outcome.answered = client.received
    return outcome


def without_tls(outcome: Outcome) -> list[tuple[dict[str, Any], bytes]]:
    """Return the requests without what tells the two listeners apart."""
    return [
        (
            {key: value for key, value in environ.items() if key not in _OF_LISTENER and key[:4] != "SSL_"},
            body,
        )
        for environ, body in outcome.requests
    ]


def check_encrypted(
    machines: TlsMachines, plain: bytes, version: int, cuts: Sequence[int], goodbye: bool = False
) -> bytes:
    """Check that ``plain`` comes to the same with TLS as without; return the client's records."""
    wanted = machines.plain.connection([plain] if plain else [])
    wanted.requests = without_tls(wanted)
    for parts in (pieces(plain, cuts), [plain] if plain else []):
        client = Client(machines.contexts[version])
        outcome = converse(machines.encrypted, client, parts, cuts=cuts, goodbye=goodbye)
        check_answers(outcome)
        assert not client.failed
        assert "tls-failed" not in {event for event, _ in machines.encrypted.log.lines}
        assert all(environ["wsgi.url_scheme"] == "https" for environ, _ in outcome.requests)
        assert client.ended or not outcome.closed, "the connection ended without close_notify"
        outcome.requests = without_tls(outcome)
        check_alike(wanted, outcome)
    return client.sent


def check_damaged(
    machines: TlsMachines, plain: bytes, version: int, cuts: Sequence[int], damages: Sequence[Damage]
) -> None:
    """Check that the application sees nothing but what was sent before the damage, and that all ends well."""
    wanted = without_tls(machines.plain.connection([plain] if plain else []))
    client = Client(machines.contexts[version])
    outcome = converse(machines.encrypted, client, pieces(plain, cuts), damages=damages, cuts=cuts)
    seen = without_tls(outcome)
    assert seen == wanted[: len(seen)]


def check_raw(machine: Machine, data: bytes, cuts: Sequence[int]) -> None:
    """Check that bytes of a client that holds no key come to an end, the same however they arrive."""
    whole = machine.connection([data] if data else [])
    told = [event for event, _ in machine.log.lines]
    assert whole.requests == []
    if data[:1].isalpha():
        assert (whole.statuses(), whole.closed) == ([400], True)
    for parts in (pieces(data, cuts), pieces(data, range(len(data)))):
        cut = machine.connection(parts)
        assert cut.requests == []
        assert [event for event, _ in machine.log.lines] == told
        assert record_types(cut.answered) == record_types(whole.answered)


def record_types(answered: bytes) -> list[int]:
    """Check that all that was answered are whole records, or plain HTTP; return their types."""
    if answered.startswith(b"HTTP/1.1 400 "):
        return []
    types = []
    while answered:
        length = int.from_bytes(answered[3:5])
        assert 20 <= answered[0] <= 23
        assert len(answered) >= 5 + length
        types.append(answered[0])
        answered = answered[5 + length :]
    return types


def check_tls(machines: TlsMachines, data: bytes) -> None:
    """Check what the bytes of a fuzzer stand for: cuts, what to do, where the damage is, and what is sent."""
    cuts, choice = cuts_of(data), data[1] if len(data) > 1 else 0
    if not choice & 1:
        check_raw(machines.encrypted, data[2:], cuts)
        return
    version, goodbye, count = choice >> 1 & 1, bool(choice & 4), choice >> 3 & 3
    places, plain = data[2 : 2 + 4 * count], data[2 + 4 * count :]
    damages = [
        Damage(int.from_bytes(place[:2]) % 1000, place[2] % 4, place[3])
        for place in (places[at : at + 4] for at in range(0, len(places) - 3, 4))
    ]
    if damages:
        check_damaged(machines, plain, version, cuts, damages)
    else:
        check_encrypted(machines, plain, version, cuts, goodbye)


def seeds(machines: TlsMachines, requests: Sequence[bytes]) -> list[bytes]:
    """Return inputs of the kinds of ``check_tls``: recorded handshakes, and requests, whole and damaged."""
    recorded = [
        check_encrypted(machines, requests[0], version, (), goodbye=True) for version in range(len(VERSIONS))
    ]
    hellos = [record[: 5 + int.from_bytes(record[3:5])] for record in recorded]
    raw = [b"\7\0" + data for data in (*recorded, *hellos, b"GET / HTTP/1.1\r\n\r\n")]
    live = [bytes([7, 1 | choice]) + request for request in requests for choice in (0, 2, 4, 6)]
    damaged = [
        bytes([7, 9 | version << 1, at >> 8, at & 255, kind, 1]) + requests[0]
        for version in range(len(VERSIONS))
        for at in (0, 1, 3, 5, 9, 43, 100, 250, 320, 400, 500)
        for kind in (CHANGE, DROP, INSERT, END)
    ]
    return raw + live + damaged
