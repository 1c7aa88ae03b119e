"""Header fields: the block of lines between the request line and the blank line (RFC 9112 §5)."""

from __future__ import annotations

import re
from typing import Any

from prefork.http.memo import Memo
from prefork.http.names import COMMON_NAMES, REPEATED_KEYS
from prefork.http.refusal import BadRequest, shown
from prefork.http.sender import DROPPED, Sender

# RFC 9112 §5: a token, a colon at once (§5.1), a value without control bytes but HTAB (RFC 9110 §5.5).
# Line folding (§5.2), bare CR and LF (§2.2) and NUL cannot match. Bytes above ASCII are obs-text: allowed.
_FIELD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r"
_LINE = re.compile(_FIELD)
_VALUE = re.compile(r"[\t -~\x80-\xff]*+")
_BLOCK = re.compile(f"(?:{_FIELD}\n)*+")

# What no line can contain. A CR at the very end may still get its LF.
_BROKEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")

# Lines up to this size are remembered: with the values, a full memo then takes about half a megabyte.
_MEMO_BYTES = 256
_MEMO_ENTRIES = 1024

# Of the new lines in a head. More are faster checked as one text.
_FEW = 4


Field = tuple[str, str]
"""Key and value."""


class FieldParser:
    """Parses header blocks of one kind of sender. What it remembers are lines: few are new in a request."""

    def __init__(self, max_fields: int, sender: Sender) -> None:
        self._max_fields = max_fields
        self._sender = sender
        self._keys = {name: sender.key(name) for name in COMMON_NAMES}
        self._lines: Memo[str, Field] = Memo(_MEMO_ENTRIES)
        """By their text, from the name to the CR."""

    def parse(self, block: bytes) -> dict[str, str]:
        """Return the fields of ``block``, lines with their ends, by their keys. Raises ``BadRequest`` 400 or 431."""
        text = block.decode("latin-1")
        lines = text.split("\n")
        lines.pop()
        if len(lines) > self._max_fields:
            _check(text)
            raise BadRequest(431, f"more than {self._max_fields} header fields")
        fields: list[Any] = [*map(self._lines.get, lines)]
        if new := fields.count(None):
            self._parse_new(lines, fields, new, text)
        environ: dict[str, str] = dict(fields)
        if len(environ) < len(fields) or DROPPED in environ:
            environ = _merged(fields)
        return environ

    def _parse_new(self, lines: list[str], fields: list[Any], new: int, text: str) -> None:
        """Replace each None in ``fields`` by what its line is."""
        is_checked = new > _FEW
        if is_checked:
            _check(text)
        at = 0
        for _ in range(new):
            at = fields.index(None, at)
            line = lines[at]
            if not is_checked and _LINE.fullmatch(line) is None:
                raise BadRequest(400, _what_is_wrong(text))
            name, _, value = line.partition(":")
            key = self._keys.get(name)
            if key is None:
                key = self._sender.key(name)
            fields[at] = field = key, value.strip(" \t\r")
            if key in REPEATED_KEYS and len(line) <= _MEMO_BYTES:
                self._lines.remember(line, field)


def is_broken(unfinished: bytes | bytearray, start: int) -> bool:
    """Tell whether no continuation can make ``unfinished`` right from ``start`` on.

    So a TLS hello or bare line feeds are refused at once and not at the deadline.
    """
    return _BROKEN.search(unfinished, start) is not None


def parse_value(raw: bytes) -> str:
    """Return the value of a field, without the spaces around it. Raises ``BadRequest``."""
    value = raw.decode("latin-1")
    if _VALUE.fullmatch(value) is None:
        raise BadRequest(400, f"malformed value of a header field: {shown(raw)}")
    return value.strip(" \t")


def field_names(block: bytes, max_fields: int) -> list[str]:
    """Check ``block`` as ``FieldParser`` does and return the names only: all that is wanted of trailers."""
    lines = _check(block.decode("latin-1")).split("\r\n")
    lines.pop()
    if len(lines) > max_fields:
        raise BadRequest(431, f"more than {max_fields} header fields")
    return [line.partition(":")[0] for line in lines]


def _check(text: str) -> str:
    """Return ``text`` if each line of it is a field."""
    if _BLOCK.fullmatch(text) is None:
        raise BadRequest(400, _what_is_wrong(text))
    return text


def _merged(fields: list[tuple[str, str]]) -> dict[str, str]:
    """Put together what was sent in several fields (RFC 9110 §5.3), unless a second one is an attack."""
    environ: dict[str, str] = {}
    for key, value in fields:
        first = environ.get(key)
        if key == DROPPED:
            continue
        if first is None:
            environ[key] = value
        elif key == "HTTP_HOST" or key == "CONTENT_LENGTH":
            # RFC 9112 §3.2 and §6.3; stricter for Content-Length: equal values are refused too.
            raise BadRequest(400, f"more than one {'Host' if key == 'HTTP_HOST' else 'Content-Length'}")
        else:
            environ[key] = first + ("; " if key == "HTTP_COOKIE" else ", ") + value
    return environ


def _what_is_wrong(text: str) -> str:
    """Name the first line that is not a field, for the log."""
    for line in text.split("\r\n"):
        if _LINE.fullmatch(line + "\r") is None:
            what = "folded" if line[:1] in (" ", "\t") else "malformed"
            return f"{what} header line {shown(line.encode('latin-1'))}"
    return "malformed header block"
