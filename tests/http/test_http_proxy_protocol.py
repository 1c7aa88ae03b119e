"""PROXY headers of both versions, in any cuts."""

from __future__ import annotations

import struct

import pytest

from prefork.http.proxy_protocol import Endpoints, ProxyHeader, bytes_of_header, parse_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes([203, 0, 113, 9, 192, 0, 2, 1]) + struct.pack("!HH", 4711, 443)
V6 = bytes.fromhex("20010db9" + "0" * 23 + "1" + "20010db8" + "0" * 23 + "2") + struct.pack("!HH", 4711, 443)
TLV = b"\x04\x00\x03abc" + b"\x20\x00\x05\x07\0\0\0\0"


def binary(kind: int, block: bytes, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(block) if length is None else length) + block


CLIENT = Endpoints("203.0.113.9", 4711, "192.0.2.1", 443)
CLIENT_6 = Endpoints("2001:db9::1", 4711, "2001:db8::2", 443)
ACCEPTED = {
    "v1 4": (b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n", ProxyHeader(CLIENT)),
    "v1 6": (b"PROXY TCP6 2001:DB9::1 2001:db8::2 4711 443\r\n", ProxyHeader(CLIENT_6)),
    "v1 mapped": (
        b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 4711 443\r\n",
        ProxyHeader(CLIENT),
    ),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", ProxyHeader(None)),
    "v1 unknown, 107 bytes": (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", ProxyHeader(None)),
    "v2 4": (binary(0x11, V4), ProxyHeader(CLIENT)),
    "v2 4 tlvs": (binary(0x11, V4 + TLV), ProxyHeader(CLIENT)),
    "v2 6": (binary(0x21, V6), ProxyHeader(CLIENT_6)),
    "v2 unix": (binary(0x31, b"/run/x".ljust(108, b"\0") * 2 + TLV), ProxyHeader(None)),
    "v2 unspec": (binary(0x00, TLV), ProxyHeader(None)),
    "v2 local": (binary(0x00, b"", 0x20), ProxyHeader(None)),
    "v2 local with addresses": (binary(0x11, V4, 0x20), ProxyHeader(None)),
    "v2 longest": (binary(0x11, V4 + bytes(4096 - 16 - 12)), ProxyHeader(CLIENT)),
}
REFUSED = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01",
    "v1 lower case": b"proxy TCP4 203.0.113.9 192.0.2.1 4711 443\r\n",
    "v1 bare line feed": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\n",
    "v1 two spaces": b"PROXY TCP4  203.0.113.9 192.0.2.1 4711 443\r\n",
    "v1 wrong family": b"PROXY TCP4 2001:db9::1 2001:db8::2 4711 443\r\n",
    "v1 wrong family 6": b"PROXY TCP6 203.0.113.9 192.0.2.1 4711 443\r\n",
    "v1 no ports": b"PROXY TCP4 203.0.113.9 192.0.2.1\r\n",
    "v1 port": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 65536\r\n",
    "v1 port with zero": b"PROXY TCP4 203.0.113.9 192.0.2.1 04711 443\r\n",
    "v1 leading zero": b"PROXY TCP4 203.0.113.09 192.0.2.1 4711 443\r\n",
    "v1 udp": b"PROXY UDP4 203.0.113.9 192.0.2.1 4711 443\r\n",
    "v1 too long": b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
    "v1 endless": b"PROXY UNKNOWN " + b"f" * 200,
    "v2 signature": b"\r\n\r\n\0\r\nQUIX\n" + binary(0x11, V4)[12:],
    "v2 version": binary(0x11, V4, 0x11),
    "v2 command": binary(0x11, V4, 0x22),
    "v2 udp": binary(0x12, V4),
    "v2 family": binary(0x41, V4),
    "v2 short": binary(0x11, V4[:-1]),
    "v2 too long": binary(0x11, V4 + bytes(4096)),
    "v2 longest length": binary(0x11, V4, length=65535),
    "empty lines": b"\r\n\r\nGET / HTTP/1.1\r\n",
}


def feed(data: bytes, step: int) -> tuple[ProxyHeader | None, bytes]:
    """Do as a connection does; return the header and what was left in the socket."""
    taken = b""
    for end in [*range(step, len(data), step), len(data)]:
        if end > len(taken):
            taken += data[len(taken) : bytes_of_header(data[:end])]
        header = parse_proxy_header(taken)
        if header is not None:
            return header, data[len(taken) :]
    return None, data[len(taken) :]


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    data, expected = ACCEPTED[name]
    for step in (1, 7, 4096):
        assert feed(data, step) == (expected, b"")
        for rest in (b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"\r\n", b"\n"):
            assert feed(data + rest, step) == (expected, rest)
    assert feed(data[:-1], 1)[0] is None


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    for step in (1, 7, 4096):
        with pytest.raises(ValueError, match="PROXY header"):
            feed(REFUSED[name], step)
