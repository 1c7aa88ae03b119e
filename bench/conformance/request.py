"""A case: the bytes of a request, and what may come of them."""

from __future__ import annotations

from dataclasses import dataclass

from bench.conformance.judge import Verdict
from bench.conformance.wire import NEXT


@dataclass(frozen=True)
class Case:
    """Bytes, and what may come of them."""

    section: str
    name: str
    data: bytes
    allowed: Verdict
    half_close: bool = False
    """Does the client say at once that it sends no more? Then no other request follows."""
    body: bytes | None = None
    """Is sent only when the server has answered the head, or is silent."""

    @property
    def then(self) -> bytes:
        """What is sent behind it."""
        return b"" if self.half_close else NEXT


def head(line: str, *fields: str, body: bytes = b"") -> bytes:
    """Return a request as it is on the wire."""
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1") + body


def get(*fields: str, line: str = "GET / HTTP/1.1", host: str | None = "a") -> bytes:
    return head(line, *([f"Host: {host}"] if host is not None else []), *fields)


def post(*fields: str, body: bytes = b"hello", line: str = "POST / HTTP/1.1") -> bytes:
    return head(line, "Host: a", *fields, body=body)


def chunked(body: bytes, *fields: str) -> bytes:
    return post("Transfer-Encoding: chunked", *fields, body=body)
