"""How an event becomes a line of text or of JSON. Pure: values in, a string out; never raises.

Text is for people: time, level, identity, message. Further lines of a message, and fields of several lines
such as a traceback, follow indented; an event always begins with its time, so nothing that comes from
outside can pose as one. JSON has everything, one object per line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from time import gmtime, strftime
from typing import NamedTuple

from prefork.channel import clip

TEXT_LIMIT = 32 * 1024
"""Longest message or field, in characters; the middle of a longer one is left out."""

_INDENT = "    "

# Control characters (a terminal obeys them, and U+0085 and U+2028 end a line for some readers), marks that
# turn the direction of writing, and surrogates, which cannot be encoded.
_OUTSIDE_ASCII = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_UNSAFE_IN_TEXT = re.compile(f"[\x00-\x1f{_OUTSIDE_ASCII}]")
_UNSAFE_IN_JSON = re.compile(f"[{_OUTSIDE_ASCII}]")


class Event(NamedTuple):
    """What a line tells; ``fields`` has the identity's fields first, then those of the event."""

    time_s: float
    level: str
    name: str
    identity: str
    message: str
    fields: Mapping[str, object]


def timestamp(time_s: float) -> str:
    """Return ``2026-11-24T11:02:03.123Z``. See RFC 3339."""
    milliseconds = int(time_s * 1000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(milliseconds // 1000))}.{milliseconds % 1000:03d}Z"


def printable(text: str) -> str:
    r"""Replace what could forge a line or steer a terminal by ``\n``, ``\x1b``, ``\u2028``."""
    return _UNSAFE_IN_TEXT.sub(_escape, text)


def as_text(value: object) -> str:
    """Return ``str(value)``, whatever the ``__str__`` of an application does."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__} in __str__>"


def body(event: Event) -> list[str]:
    """Return what people read of an event, in lines: identity and message, then what follows, indented."""
    first, *rest = clip(event.message, TEXT_LIMIT).rstrip("\n").split("\n")
    for name, value in event.fields.items():
        # A traceback without a frame is one line, and yet the only one that says why.
        if isinstance(value, str) and ("\n" in value or name == "traceback"):
            rest += clip(value, TEXT_LIMIT).rstrip("\n").split("\n")
    identity = f"{event.identity}: " if event.identity else ""
    return [printable(identity + first), *(_INDENT + printable(line) for line in rest)]


def to_text(event: Event) -> str:
    """Return ``2026-11-24T11:02:03.123Z info     web.2 gen 3 pid 411: message`` and what follows indented."""
    return f"{timestamp(event.time_s)} {event.level:<8} " + "\n".join(body(event))


class JsonFormat:
    """One object: time, level, event, message, then the configured fields, the identity's, the event's."""

    def __init__(self, fields: Mapping[str, object], rename: Mapping[str, str]) -> None:
        self._fields = fields
        self._rename = rename

    def __call__(self, event: Event) -> str:
        record = {
            "time": timestamp(event.time_s),
            "level": event.level,
            "event": event.name,
            "message": clip(event.message, TEXT_LIMIT),
            **self._fields,
            **event.fields,
        }
        rename = self._rename
        return to_json({rename.get(key, key): value for key, value in record.items()} if rename else record)


def to_json(record: Mapping[str, object]) -> str:
    """Serialise what applications may have put into a field; a surrogate becomes U+FFFD."""
    text = json.dumps(
        {key: _plain(value) for key, value in record.items()}, ensure_ascii=False, separators=(",", ":")
    )
    return _UNSAFE_IN_JSON.sub(_escape_in_json, text)


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {as_text(key): _plain(item) for key, item in value.items()}
    return clip(as_text(value), TEXT_LIMIT)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    short = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(character)
    code = ord(character)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _escape_in_json(match: re.Match[str]) -> str:
    code = ord(match[0])
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"
