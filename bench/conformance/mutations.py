"""One odd byte in or beside a field that frames the body, as smuggling tools send it: nobody may see through it.

A server that reads ``Transfer-Encoding\\x0b: chunked`` as the field it resembles, behind a proxy that does not (or the
other way round), takes the end of one client's request for the beginning of another's.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.conformance.judge import Verdict, drop, either, reject, serve
from bench.conformance.request import Case, post

ODD = "".join(map(chr, (*range(9), *range(11, 13), *range(14, 32), 127, 128, 133, 160, 255))) + "_-.,;:'\"0x"
BLANKS = " \t"
BODY = b"5\r\nhello\r\n0\r\n\r\n"


def mutations() -> Iterator[Case]:
    """Yield the cases of one section."""
    length = f"Content-Length: {len(BODY)}"
    by_length = serve(body=BODY.decode())
    both = either(drop(), serve(last=True, body="hello"))
    for odd in ODD + BLANKS + "\r":
        blank = odd in BLANKS
        named = either(reject(), by_length)
        lines: dict[str, tuple[str, Verdict]] = {
            "before the name": (f"{odd}Transfer-Encoding: chunked", named),
            "in the name": (f"Transfer{odd}Encoding: chunked", both if odd == "-" else named),
            "behind the name": (f"Transfer-Encoding{odd}: chunked", drop() if odd in ":" + BLANKS else named),
            "behind another value": (f"X-A: b{odd}Transfer-Encoding: chunked", named),
        }
        if odd != "\r":
            # Empty elements of a list are none.
            value = both if blank or odd == "," else drop()
            lines["before the value"] = (f"Transfer-Encoding:{odd}chunked", value)
            lines["behind the value"] = (f"Transfer-Encoding: chunked{odd}", value)
        for place, (line, allowed) in lines.items():
            yield Case("Odd bytes", f"{odd!r} {place}", post(length, line, body=BODY), allowed)
        if odd not in "\r0,":
            trimmed = serve(body="hello") if blank else drop()
            for line in (f"Content-Length:{odd}5", f"Content-Length: 5{odd}"):
                yield Case("Odd bytes", repr(line), post(line), trimmed)
