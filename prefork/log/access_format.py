r"""Formats of the access log, compiled once into a function from an entry to a line.

A format is a text with atoms, in the spelling of gunicorn (``%(h)s``, ``%({referer}i)s``) or of Apache
(``%h``, ``%>s``, ``%{Referer}i``). An atom means the same in both; where the two servers disagree
(``a f L M p q``) it is gunicorn's. Each atom is a Python expression in the table below, and the expressions
of a format become one function: a call for each atom would cost more than the rest of the line.

Strings of a request are bytes decoded as latin-1. In lines they are escaped as Apache does (``\"``, ``\\``,
``\n``, ``\xe9``), in JSON as JSON does; a line is ASCII and nothing in it can end it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from os import getpid
from time import gmtime, localtime, strftime
from types import MappingProxyType
from typing import Any, NamedTuple

from prefork.log.format import to_json


@dataclass(slots=True)
class AccessEntry:
    """A request that is over. A refused one has an empty environ, and of its line what was readable.

    ``target`` is as it was sent, decoded as latin-1; ``started_at`` is ``time.time()``; ``sent_bytes`` counts
    the body; ``elapsed_ns`` is the time in the application; ``status`` 0 means that there was no response.
    """

    remote_addr: str
    method: str
    target: str
    protocol: str
    status: int
    sent_bytes: int
    started_at: float
    elapsed_ns: int
    environ: Mapping[str, Any] = field(default_factory=dict)
    response_headers: Sequence[tuple[str, str]] = ()
    remote_user: str = ""
    pid: int = field(default_factory=getpid)


Redact = Callable[[str], str]
Formatter = Callable[[AccessEntry], str]


class Atom(NamedTuple):
    """``expression`` sees ``entry``, ``environ``, ``target`` (redacted) and the functions of ``_compile``."""

    expression: str
    meaning: str


ATOMS: Mapping[str, Atom] = MappingProxyType(
    {
        "h": Atom("entry.remote_addr or '-'", "client address"),
        "l": Atom("'-'", "always `-`"),
        "u": Atom("entry.remote_user or '-'", "user, as the application or a proxy set it"),
        "t": Atom("clf_time(entry.started_at)", "time of the request, `[24/Nov/2026:11:02:03 +0000]`"),
        "r": Atom(
            "f'{entry.method} {target} {entry.protocol}' if entry.protocol"
            " else f'{entry.method} {target}' if entry.method else '-'",
            "request line",
        ),
        "m": Atom("entry.method or '-'", "method"),
        "U": Atom("target.partition('?')[0] or '-'", "target without the query"),
        "q": Atom("target.partition('?')[2]", "query without the `?`"),
        "H": Atom("entry.protocol or '-'", "protocol"),
        "s": Atom("entry.status or '-'", "status, also `%>s`"),
        "B": Atom("entry.sent_bytes", "bytes of the response body"),
        "b": Atom("entry.sent_bytes or '-'", "the same, `-` instead of 0"),
        "f": Atom("redact(environ.get('HTTP_REFERER') or '-')", "referer"),
        "a": Atom("environ.get('HTTP_USER_AGENT') or '-'", "user agent"),
        "T": Atom("entry.elapsed_ns // 1_000_000_000", "duration in whole seconds"),
        "M": Atom("entry.elapsed_ns // 1_000_000", "duration in milliseconds"),
        "D": Atom("entry.elapsed_ns // 1_000", "duration in microseconds"),
        "L": Atom("f'{entry.elapsed_ns / 1e9:.6f}'", "duration in seconds, `0.012345`"),
        "p": Atom("f'<{entry.pid}>'", "process id in angle brackets"),
        "request_id": Atom("environ.get('prefork.request_id') or '-'", "id of the request"),
        "{NAME}i": Atom("", "request header"),
        "{NAME}o": Atom("", "response header"),
        "{NAME}e": Atom("", "variable of the WSGI environ"),
    }
)

JSON_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "time": "f'\"{rfc3339(entry.started_at)}.{int(entry.started_at * 1000) % 1000:03}Z\"'",
        "level": "'\"info\"'",
        "event": "'\"access\"'",
        "remote_addr": "quote(entry.remote_addr)",
        "remote_user": "quote(entry.remote_user)",
        "method": "quote(entry.method)",
        "path": "quote(target.partition('?')[0])",
        "query": "quote(target.partition('?')[2])",
        "protocol": "quote(entry.protocol)",
        "status": "entry.status or 'null'",
        "sent_bytes": "entry.sent_bytes",
        "duration_s": "f'{entry.elapsed_ns / 1e9:.6f}'",
        "referer": "quote(redact(environ.get('HTTP_REFERER') or ''))",
        "user_agent": "quote(environ.get('HTTP_USER_AGENT'))",
        "request_id": "quote(environ.get('prefork.request_id'))",
    }
)
"""Keys of a JSON line; a string that is missing or empty is null."""

COMMON = '%h %l %u %t "%r" %>s %b'
COMBINED = COMMON + ' "%{Referer}i" "%{User-Agent}i"'

_TOKEN = re.compile(r"%(?:%|\((?P<inner>[^()]*)\)s|(?P<bare>>?[A-Za-z]|\{[^{}]*\}[A-Za-z])|)")
_NAMED = re.compile(r"\{([^{}]+)\}([ioe])")
_UNSAFE = re.compile(r"[^ !#-\[\]-~]")
_SAFE = r"[ !#-\[\]-~]*+"
_QUERY_VARIABLES = frozenset({"QUERY_STRING", "REQUEST_URI", "RAW_URI", "HTTP_REFERER"})
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def compile_access_format(text: str, redact: Redact = str) -> Formatter:
    """Return the function that makes a line, without its end, from an entry.

    ``text`` is ``combined``, ``common`` or a format. Raises ``ValueError`` that names an unknown atom and its
    position.
    """
    text = {"combined": COMBINED, "common": COMMON}.get(text, text)
    if "\n" in text or "\r" in text:
        raise ValueError("an access format is one line, but this one has a line break")
    literals, expressions, end = [], [], 0
    for token in _TOKEN.finditer(text):
        literals.append(text[end : token.start()])
        if token[0] == "%%":
            expressions.append("'%'")
        else:
            expressions.append(_expression(token))
        end = token.end()
    literals.append(text[end:])
    template = "%s".join(literal.replace("%", "%%") for literal in literals)
    values_of = _compile(expressions, redact)
    # Nearly always nothing has to be escaped: then the finished line has no unsafe character but those of
    # the format itself, in their order. One match tells that, instead of one for each value.
    is_safe = re.compile(_SAFE + "".join(re.escape(c) + _SAFE for c in _UNSAFE.findall("".join(literals))))

    def line(entry: AccessEntry) -> str:
        values = values_of(entry, entry.environ, redact(entry.target))
        text = template % values
        if not is_safe.fullmatch(text):
            text = template % tuple(_UNSAFE.sub(_escape, str(value)) for value in values)
        return text

    return line


def compile_access_json(
    constants: Mapping[str, object], rename: Mapping[str, str], redact: Redact = str
) -> Formatter:
    """Return the function that makes a JSON object; ``constants`` are put at its end."""
    named = [f"{json.dumps(rename.get(key, key))}:".replace("%", "%%") + "%s" for key in JSON_KEYS]
    extra = to_json({rename.get(key, key): value for key, value in constants.items()})[1:-1]
    template = "{" + ",".join(named) + (f",{extra}".replace("%", "%%") if extra else "") + "}"
    values_of = _compile(JSON_KEYS.values(), redact)

    def line(entry: AccessEntry) -> str:
        return template % values_of(entry, entry.environ, redact(entry.target))

    return line


def _compile(expressions: Iterable[str], redact: Redact) -> Callable[..., tuple[object, ...]]:
    scope = {
        "clf_time": _EachSecond(_clf_time),
        "rfc3339": _EachSecond(lambda second: strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))),
        "header": _header,
        "quote": _quote,
        "redact": redact,
    }
    source = "".join(f"({expression})," for expression in expressions)
    # Nothing of a config gets in here but the names of headers and variables, by repr().
    function: Callable[..., tuple[object, ...]] = eval(f"lambda entry, environ, target: ({source})", scope)
    return function


def _expression(token: re.Match[str]) -> str:
    """Return the expression of one atom."""
    spelling = token["inner"] or (token["bare"] or "").replace(">s", "s")
    if spelling in ATOMS and "{" not in spelling:
        return ATOMS[spelling].expression
    named = _NAMED.fullmatch(spelling)
    if named is None:
        known = " ".join(ATOMS)
        raise ValueError(
            f"unknown atom {token[0]!r} at character {token.start() + 1}; known are {known}, and %% for a %"
        )
    name, kind = named.groups()
    if kind == "o":
        return f"header(entry.response_headers, {name.lower()!r})"
    if kind == "i":
        name = name.upper().replace("-", "_")
        name = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
    value = f"environ.get({name!r}) or '-'"
    return f"redact({value})" if name in _QUERY_VARIABLES else value


def _header(headers: Sequence[tuple[str, str]], wanted: str) -> str:
    for name, value in headers:
        if name.lower() == wanted:
            return value
    return "-"


def _quote(text: str | None) -> str:
    return encode_basestring_ascii(text) if text else "null"


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    short = {'"': r"\"", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(character)
    code = ord(character)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


class _EachSecond:
    """Renders a time once for each second."""

    def __init__(self, render: Callable[[int], str]) -> None:
        self._render = render
        self._made = (-1, "")

    def __call__(self, time_s: float) -> str:
        second, text = self._made  # one tuple, so that threads never see a mixture
        if second != int(time_s):
            second = int(time_s)
            text = self._render(second)
            self._made = (second, text)
        return text


def _clf_time(second: int) -> str:
    """Return ``[24/Nov/2026:11:02:03 +0000]`` in local time; an application's locale changes no month."""
    now = localtime(second)
    sign, offset = ("-" if now.tm_gmtoff < 0 else "+"), abs(now.tm_gmtoff) // 60
    return (
        f"[{now.tm_mday:02}/{_MONTHS[now.tm_mon - 1]}/{now.tm_year}:"
        f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} {sign}{offset // 60:02}{offset % 60:02}]"
    )
