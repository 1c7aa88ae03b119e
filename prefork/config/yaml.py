"""YAML text to nodes: the YAML 1.2 core schema on PyYAML's parser, with places and bounds.

The only module that imports PyYAML. It takes the parser's events and builds the tree itself, without
recursion: no tags, no constructors, and every bound holds before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from prefork.config.nodes import Entry, Items, Node, Place, Report, Scalar, Table, is_null, resolve

PARSER: Final[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

MAX_DEPTH: Final = 20
MAX_NODES: Final = 20_000
"""Values of a file, those that aliases repeat included."""

_UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # YAML 1.2 §5.1

_NO_KEY: Final = "expected a word as key, got a list or a mapping; quote text that begins with { or ["


class Unreadable(Exception):
    """The text as a whole is not the YAML that a config is; ``place`` and a message."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place
        self.message = message


def parse(text: str, source: str, report: Report, *, place: Place | None = None) -> Node | None:
    """Return the tree of a document, None of an empty one; duplicate keys go to the report.

    With ``place`` everything is there: the text of a flag has no lines.

    Raises Unreadable when nothing can be said beyond the first mistake.
    """
    bad = _UNPRINTABLE.search(text)
    if bad:
        line, start = text.count("\n", 0, bad.start()) + 1, text.rfind("\n", 0, bad.start())
        raise Unreadable(
            Place(source, line, bad.start() - start),
            f"expected YAML text, got the unprintable character {bad[0]!a}",
        )
    try:
        return _Builder(source, report, place).build(_events(text))
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, source) from None


def _events(text: str) -> Iterator[Event]:
    parser = PARSER(text)
    try:
        while parser.check_event():
            yield parser.get_event()
    finally:
        parser.dispose()


def _syntax_error(error: yaml.MarkedYAMLError, text: str, source: str) -> Unreadable:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Unreadable(Place(source), f"not YAML: {error.problem}")
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    column = mark.column
    message = f"not YAML: {error.problem}"
    if error.context and error.context_mark and error.context_mark.line != mark.line:
        message += f" ({error.context} that begins in line {error.context_mark.line + 1})"
    start = line.rfind("${", 0, mark.column + 1)
    if start >= 0 and not any(line.count(quote, 0, start) % 2 for quote in "\"'"):
        column, found = start, line[start:].partition("}")[0] + "}"
        message = (
            f'expected a value, got an unquoted {found}, whose braces are YAML here; quote it: "{found}"'
        )
    elif "mapping values" in (error.problem or ""):
        message += '; check the indentation, and quote text that has ": " in it'
    elif "\t" in line[: mark.column + 1]:
        message += "; indent with spaces, not tabs"
    elif line[mark.column : mark.column + 1] in ("%", "@", "`"):
        message += f"; quote a value that begins with {line[mark.column]}"
    return Unreadable(Place(source, mark.line + 1, column + 1), message)


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    place: Place
    anchor: str | None
    is_table: bool
    nodes_before: int
    nodes: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    key: Scalar | None = None


@dataclass(slots=True)
class _Builder:
    source: str
    report: Report
    place: Place | None
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Node, int]] = field(default_factory=dict)
    nodes: int = 0
    documents: int = 0
    root: Node | None = None

    def build(self, events: Iterator[Event]) -> Node | None:
        for event in events:
            match event:
                case DocumentStartEvent():
                    self.documents += 1
                    if self.documents > 1:
                        self._refuse(event, "expected one YAML document, got a second one")
                case AliasEvent():
                    self._alias(event)
                case ScalarEvent():
                    self._scalar(event)
                case SequenceStartEvent() | MappingStartEvent():
                    self._open(event)
                case SequenceEndEvent() | MappingEndEvent():
                    self._close()
        return None if self.root is not None and is_null(self.root) else self.root

    def _place(self, event: Event) -> Place:
        assert event.start_mark is not None
        return self.place or Place(self.source, event.start_mark.line + 1, event.start_mark.column + 1)

    def _refuse(self, event: Event, message: str) -> NoReturn:
        raise Unreadable(self._place(event), message)

    def _count(self, event: Event, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            self._refuse(
                event, f"expected at most {MAX_NODES} values (what aliases repeat included), got more"
            )

    def _check_tag(self, event: NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag and tag != "!":
            short = tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(event, f"expected a value without a tag, got {short}; quote a value to make it text")

    def _alias(self, event: AliasEvent) -> None:
        if event.anchor not in self.anchors:
            self._refuse(event, f"expected an anchor &{event.anchor} that ends before this alias, got none")
        node, nodes = self.anchors[event.anchor]
        self._count(event, nodes)
        self._add(node)

    def _scalar(self, event: ScalarEvent) -> None:
        self._check_tag(event)
        plain = event.implicit[0]
        node = Scalar(self._place(event), event.value, resolve(event.value) if plain else event.value)
        self._count(event, 1)
        self._anchor(event.anchor, node, 1)
        if plain and event.value == "<<" and self._wants_key():
            self._refuse(
                event, 'expected a key, got the merge key "<<", which YAML 1.2 has not; write the keys out'
            )
        self._add(node)

    def _open(self, event: SequenceStartEvent | MappingStartEvent) -> None:
        self._check_tag(event)
        if self._wants_key():
            self._refuse(event, _NO_KEY)
        if len(self.stack) >= MAX_DEPTH:
            self._refuse(event, f"expected at most {MAX_DEPTH} levels, got more")
        is_table = isinstance(event, MappingStartEvent)
        self.stack.append(_Open(self._place(event), event.anchor, is_table, self.nodes))
        self._count(event, 1)

    def _close(self) -> None:
        done = self.stack.pop()
        node: Node = (
            Table(done.place, done.entries) if done.is_table else Items(done.place, tuple(done.nodes))
        )
        self._anchor(done.anchor, node, self.nodes - done.nodes_before)
        self._add(node)

    def _anchor(self, name: str | None, node: Node, nodes: int) -> None:
        if name is not None:
            self.anchors[name] = (node, nodes)

    def _wants_key(self) -> bool:
        return bool(self.stack) and self.stack[-1].is_table and self.stack[-1].key is None

    def _add(self, node: Node) -> None:
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        if not top.is_table:
            top.nodes.append(node)
        elif top.key is None:
            if not isinstance(node, Scalar):
                raise Unreadable(node.place, _NO_KEY)
            top.key = node
        else:
            self._set(top, top.key, node)
            top.key = None

    def _set(self, top: _Open, key: Scalar, node: Node) -> None:
        first = top.entries.get(key.text)
        if first is None:
            top.entries[key.text] = Entry(key.place, node)
        else:
            self.report.mistake(
                key.place,
                self._path(key.text),
                f"expected each key once, got it again after line {first.place.line}",
            )

    def _path(self, last: str) -> str:
        outer = [o.key.text for o in self.stack[:-1] if o.key is not None]
        return ".".join([*outer, last])
