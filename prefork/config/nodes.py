"""The tree between YAML text and typed values: nodes that know their place, and the report of mistakes.

Pure values; used by the master and by the commands, never by a worker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

CoreValue: TypeAlias = bool | int | float | str | None

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, CoreValue] = {
    "": None,
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LONGEST_NUMBER = 100
_SHOWN = 60


def resolve(text: str) -> CoreValue:
    """Return what a plain scalar means in the YAML 1.2 core schema (§10.3.2), without infinities and NaN.

    No ``off``/``yes`` booleans, no ``0660`` octal (it is 660), no base 60. More than 100 digits are text.
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _LONGEST_NUMBER:
        if _INT.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written: a file with line and column from 1, or a flag or variable with line 0."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    @property
    def brief(self) -> str:
        """The place without its column, as ``prefork check`` prints it."""
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value. ``loose`` text (interpolated, or a flag's) is converted to the type its key wants.

    ``secret``: from a file, not to be printed. ``reported``: a mistake in it was reported already.
    """

    place: Place
    text: str
    value: CoreValue
    loose: bool = False
    secret: bool = False
    reported: bool = False

    @property
    def is_text(self) -> bool:
        """Whether a key that wants text takes this, and not a number or boolean."""
        return self.loose or isinstance(self.value, str)

    @classmethod
    def of_text(cls, place: Place, text: str, *, secret: bool = False) -> Scalar:
        """Return a loose scalar: a number for a key that wants a number, text for one that wants text."""
        return cls(place, text, resolve(text), loose=True, secret=secret)


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    place: Place
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's place and its value."""

    place: Place
    node: Node


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping with text keys."""

    place: Place
    entries: Mapping[str, Entry]


Node: TypeAlias = Scalar | Items | Table


def is_null(node: Node) -> bool:
    """Tell whether the node is YAML's null, which resets its key to the default."""
    return isinstance(node, Scalar) and node.value is None and not node.loose


def from_python(value: object, place: Place) -> Node:
    """Return the node of a value that did not come from YAML: a flag's, a variable's or a default."""
    if isinstance(value, Mapping):
        return Table(place, {str(k): Entry(place, from_python(v, place)) for k, v in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, str):
        return Items(place, tuple(from_python(item, place) for item in value))
    if value is None or isinstance(value, bool):
        return Scalar(place, str(value).lower(), value)
    return Scalar.of_text(place, str(value))


def describe(node: Node) -> str:
    """Return how an error names what it found: ``"two"``, ``0660``, ``a list``."""
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Table):
        return "a mapping"
    if node.secret:
        return "a secret value"
    if is_null(node):
        return "nothing"
    text = node.text if len(node.text) <= _SHOWN else node.text[:_SHOWN] + "…"
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f'"{text}"' if node.is_text else text


def join(path: str, name: str) -> str:
    """Return the path of a key below another."""
    return f"{path}.{name}" if path else name


@dataclass(slots=True)
class Report:
    """The mistakes found so far, and where each good value comes from; one for each load."""

    mistakes: dict[tuple[Place, str], None] = field(default_factory=dict)
    told: set[tuple[Place, str, str]] = field(default_factory=set)
    blamed: set[str] = field(default_factory=set)
    origins: dict[str, Place] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)

    def mistake(self, place: Place, path: str, message: str) -> None:
        """Note a mistake; the same one, met again through a pool that inherits it, counts once."""
        self.blamed.add(path)
        key = re.sub(r"^pools\.[^.]+\.", "", path)
        same = (place, key, message)
        if same in self.told:
            return
        if place.line or key == path:  # what has no line, a flag, may well say the same of two pools
            self.told.add(same)
        self.mistakes[place, f"{path}: {message}" if path else message] = None

    def wrong(self, node: Node, path: str, expected: str, hint: str = "") -> None:
        """Note a value that is not what was expected, unless it was reported already."""
        if isinstance(node, Scalar) and node.reported:
            self.blamed.add(path)
        else:
            self.mistake(node.place, path, f"expected {expected}, got {describe(node)}{hint}")

    def blames(self, *paths: str) -> bool:
        """Tell whether there is a mistake at one of these keys or below it."""
        return any(
            f"{known}.".startswith((f"{path}.", f"{path}[")) for known in self.blamed for path in paths
        )

    def place(self, path: str) -> Place:
        """Return the place of a key, or of the nearest one around it that was written."""
        while path and path not in self.origins:
            path = re.sub(r"(^|\.)[^.\[]*$|\[[0-9]+\]$", "", path)
        return self.origins[path]

    def lines(self) -> list[str]:
        """Return a ``place: path: message`` line for each mistake, in the order of the text."""
        order = {source: n for n, source in enumerate(dict.fromkeys(p.source for p, _ in self.mistakes))}
        found = sorted(self.mistakes, key=lambda m: (order[m[0].source], m[0].line, m[0].column))
        return [f"{place}: {text}" for place, text in found]
