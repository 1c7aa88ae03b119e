"""What clients ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """``request`` is sent over and over, with a running number for ``########`` in it.

    ``bare`` if the C loop's fixed answer is one to it.
    """

    title: str
    request: bytes
    about: str = ""
    access_log: bool = False
    bare: bool = False


def request(target: str, *fields: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    method = "POST" if body else "GET"
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {target} HTTP/1.1", "Host: bench.example", *fields, *length, "", ""]
    return "\r\n".join(lines).encode() + body


BROWSER = (
    "Connection: keep-alive",
    "Cache-Control: max-age=0",
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Dest: document",
    "Referer: http://bench.example/orders?page=2",
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
    "Cookie: theme=dark; consent=1; session=eyJ1c2VyIjo0MiwiY3NyZiI6IjVmM2EifQ.Zx1aBQ.",
)
# A server that remembers what it has parsed does not meet the same bytes again.
STRANGERS = (*BROWSER[:-1], BROWSER[-1] + "########")

SCENARIOS = (
    Scenario("kept-alive hello", request("/"), bare=True),
    Scenario("kept-alive hello, access log on", request("/"), access_log=True),
    Scenario("a new connection for each request", request("/", "Connection: close"), bare=True),
    Scenario(
        "12 browser headers with cookies",
        request("/", *BROWSER),
        "The same ones with each request, as from one user.",
        bare=True,
    ),
    Scenario(
        "12 browser headers, a new cookie each",
        request("/", *STRANGERS),
        "No two requests are alike, as from many users of one browser.",
        bare=True,
    ),
    Scenario("Flask JSON", request("/json"), "Flask's own time is part of it."),
    Scenario("64 KiB POST", request("/post", body=bytes(64 << 10)), "The application reads the body."),
    Scenario("1 MiB response", request("/large")),
    Scenario(
        "chunked streaming",
        request("/stream"),
        "A generator yields 16 pieces of 1 KiB, without Content-Length. PEP 3333 forbids to delay a piece until the "
        "next is made: prefork sends each at once, in 17 calls, and four fifths of its time are spent in the "
        "kernel; granian's second thread sends what has come together meanwhile, in 2 calls.",
    ),
)
