"""The PROXY protocol, versions 1 and 2: what a TCP proxy sends before the bytes of its client.

Pure. See HAProxy's ``doc/proxy-protocol.txt``; the sections are its.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from prefork.http.refusal import shown

# §2.1: 107 bytes with the line end, whatever the addresses.
MAX_LINE_BYTES = 107
# §2.2 allows 64 KiB of addresses and extensions (TLVs); what proxies send fits in a few hundred bytes.
MAX_BINARY_BYTES = 4096

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_BINARY_HEAD_BYTES = 16

_PORT = rb"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) " + _PORT + b" " + _PORT)
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [ -~]*)?")


class Endpoints(NamedTuple):
    """The client's connection to the proxy: both ends of it."""

    source: str
    source_port: int
    destination: str
    destination_port: int


class ProxyHeader(NamedTuple):
    """A complete header."""

    endpoints: Endpoints | None
    """None: UNKNOWN, LOCAL, or a unix socket, so there is nothing better than the connection's own addresses."""


def bytes_of_header(received: bytes) -> int:
    """Return how many bytes of ``received`` belong to the header, as far as can be told; at least 1.

    So that no byte of what follows, which may be a TLS handshake, is taken with it.
    """
    if received[:1] == b"\r":
        if len(received) < _BINARY_HEAD_BYTES:
            return len(received)
        return min(len(received), _binary_bytes(received))
    end = received.find(b"\n", 0, MAX_LINE_BYTES)
    return end + 1 if end >= 0 else min(len(received), MAX_LINE_BYTES)


def parse_proxy_header(header: bytes) -> ProxyHeader | None:
    """Return what ``header`` says, or None while it is not complete. Raises ValueError: no such header."""
    if not header:
        return None
    return _parse_binary(header) if header[:1] == b"\r" else _parse_line(header)


def _parse_line(line: bytes) -> ProxyHeader | None:
    """Version 1 (§2.1)."""
    start = b"PROXY "
    if line[: len(start)] != start[: len(line)]:
        raise ValueError(f"no PROXY header: {shown(line)}")
    if line[-2:] != b"\r\n":
        if len(line) >= MAX_LINE_BYTES or b"\n" in line:
            raise ValueError(f"malformed PROXY header: {shown(line)}")
        return None
    if _UNKNOWN.fullmatch(line, 0, len(line) - 2):
        return ProxyHeader(None)
    match = _LINE.fullmatch(line, 0, len(line) - 2)
    if match is None:
        raise ValueError(f"malformed PROXY header: {shown(line)}")
    family, source, destination, source_port, destination_port = match.groups()
    kind = IPv4Address if family == b"4" else IPv6Address
    ports = int(source_port), int(destination_port)
    try:
        ends = _text(kind(source.decode())), _text(kind(destination.decode()))
    except ValueError:
        raise ValueError(f"malformed PROXY header: {shown(line)}") from None
    if max(ports) > 65535:
        raise ValueError(f"malformed PROXY header: {shown(line)}")
    return ProxyHeader(Endpoints(ends[0], ports[0], ends[1], ports[1]))


def _parse_binary(header: bytes) -> ProxyHeader | None:
    """Version 2 (§2.2)."""
    if header[:12] != _SIGNATURE[: len(header)]:
        raise ValueError(f"no PROXY header: {shown(header)}")
    if len(header) < _BINARY_HEAD_BYTES:
        return None
    command, kind = header[12], header[13]
    if command not in (0x20, 0x21):
        raise ValueError(f"unknown version or command 0x{command:02x} in a PROXY header")
    wanted = _binary_bytes(header)
    if wanted > MAX_BINARY_BYTES:
        raise ValueError(f"a PROXY header of {wanted} bytes, more than {MAX_BINARY_BYTES}")
    if len(header) < wanted:
        return None
    if command == 0x20:  # LOCAL: whatever stands there is to be ignored
        return ProxyHeader(None)
    if kind == 0x00:  # UNSPEC
        return ProxyHeader(None)
    sizes = {0x11: 4, 0x21: 16, 0x31: 108}  # TCP over IPv4 and IPv6, a unix stream
    if kind not in sizes:
        raise ValueError(f"unknown family or protocol 0x{kind:02x} in a PROXY header")
    size = sizes[kind]
    ports_bytes = 0 if kind == 0x31 else 4
    block = header[_BINARY_HEAD_BYTES : _BINARY_HEAD_BYTES + 2 * size + ports_bytes]
    if len(block) < 2 * size + ports_bytes:
        raise ValueError("a PROXY header that is too short for its addresses")
    if kind == 0x31:
        return ProxyHeader(None)
    family = IPv4Address if size == 4 else IPv6Address
    # What follows the addresses are extensions (TLVs), which have nothing for WSGI.
    return ProxyHeader(
        Endpoints(
            _text(family(block[:size])),
            int.from_bytes(block[-4:-2], "big"),
            _text(family(block[size : 2 * size])),
            int.from_bytes(block[-2:], "big"),
        )
    )


def _text(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _binary_bytes(header: bytes) -> int:
    return _BINARY_HEAD_BYTES + int.from_bytes(header[14:16], "big")
