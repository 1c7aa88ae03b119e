"""Kinds made of several values: lists, mappings, and sections (the dataclasses of the schema)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, TypeVar

from prefork.config.kinds import LATER, JsonSchema, Kind
from prefork.config.nodes import (
    Items,
    Node,
    Place,
    Report,
    Scalar,
    Table,
    from_python,
    is_null,
    join,
)
from prefork.suggest import did_you_mean

T = TypeVar("T")

BUILT_IN: Final = Place("default")
REQUIRED: Final = object()
"""The default of a key that has none."""

INTERPOLATED: Final = {"type": "string", "pattern": r"\$(\{|\$)"}
"""The JSON Schema of ``#/definitions/interpolated``."""


@dataclass(frozen=True)
class Key:
    """What the schema knows about one key. ``default`` is in the config's notation."""

    name: str
    kind: Kind[Any]
    default: Any
    meaning: str
    on_reload: bool


def key(default: Any, kind: Kind[Any], meaning: str, *, on_reload: bool = True) -> Any:
    """Return the dataclass field of a key. ``on_reload``: whether a reload applies a change."""
    metadata = {"kind": kind, "default": default, "meaning": meaning, "on_reload": on_reload}
    if default is REQUIRED:
        return field(metadata=metadata)
    if default is None:
        return field(default=None, metadata=metadata)
    report = Report()
    value = kind.read(from_python(default, BUILT_IN), "", report)
    if report.mistakes:
        raise TypeError(f"the default of a key does not fit its kind: {report.lines()}")
    return field(default_factory=lambda: value, metadata=metadata)


def keys(section: type[Any]) -> Iterator[Key]:
    """Yield the keys of one dataclass of the schema, in their order."""
    for item in fields(section):
        if item.metadata:
            m = item.metadata
            yield Key(item.name, m["kind"], m["default"], m["meaning"], m["on_reload"])


def unknown_key(
    place: Place, path: str, name: str, known: Sequence[str], later: Sequence[str], report: Report
) -> None:
    """Report a key that is not known: what it may be instead, or that a later version will have it."""
    if name in later:
        report.mistake(place, join(path, name), LATER)
    else:
        hint = did_you_mean(name, known) or f"; known here: {', '.join(known)}"
        report.mistake(place, join(path, name), f"unknown key{hint}")


def read_keys(section: type[Any], table: Table, path: str, report: Report) -> dict[str, Any]:
    """Return the values of the keys that are set; unknown keys go to the report."""
    known = {k.name: k for k in keys(section)}
    values: dict[str, Any] = {}
    for name, entry in table.entries.items():
        if name not in known:
            unknown_key(entry.place, path, name, list(known), getattr(section, "LATER", ()), report)
        elif not is_null(entry.node):
            values[name] = known[name].kind.read(entry.node, join(path, name), report)
    return values


@dataclass(frozen=True)
class Section(Kind[T]):
    """A mapping whose keys are the fields of a dataclass; its ``LATER`` names the keys of later versions."""

    type: type[T]
    expects: str = "a mapping"

    def read(
        self, node: Node, path: str, report: Report, unwritten: Mapping[str, Any] = MappingProxyType({})
    ) -> T | None:
        """Read each key; one that is absent or null keeps its default. ``unwritten``: what are no keys."""
        report.origins[path] = node.place
        if not isinstance(node, Table):
            report.wrong(node, path, self.expects)
            return None
        values = read_keys(self.type, node, path, report)
        for one in keys(self.type):
            if one.default is REQUIRED and one.name not in values:
                report.mistake(node.place, join(path, one.name), f"missing: expected {one.kind.expects}")
                values[one.name] = None
        return self.type(**values, **unwritten)

    def show(self, value: T) -> Any:
        """Return the keys as plain data, without those that are unset."""
        values = ((k, getattr(value, k.name)) for k in keys(self.type))
        return {k.name: k.kind.show(item) for k, item in values if not (item is k.default is None)}

    def json_schema(self) -> JsonSchema:
        """Return an object that allows the known keys only."""
        return object_schema(self.type)


def object_schema(section: type[Any]) -> JsonSchema:
    """Return the JSON Schema of one dataclass of the schema."""
    properties: dict[str, Any] = {}
    for one in keys(section):
        schema = {"description": one.meaning, **open_schema(one.kind.json_schema())}
        if one.default is not REQUIRED and one.default is not None:
            schema["default"] = one.default
        properties[one.name] = schema
    required = [one.name for one in keys(section) if one.default is REQUIRED]
    result: JsonSchema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**result, "required": required} if required else result


def open_schema(schema: JsonSchema) -> JsonSchema:
    """Return a value's schema that takes null and references (``${…}``) too."""
    own = schema.get("anyOf", [schema])
    return {"anyOf": [*own, {"type": "null"}, {"$ref": "#/definitions/interpolated"}]}


@dataclass(frozen=True)
class Shorthand(Kind[T]):
    """A section, or one scalar that stands for the section with only ``key`` set."""

    section: Section[T]
    key: str

    @property
    def expects(self) -> str:
        return f"an address or a mapping with the key {self.key}"

    def read(self, node: Node, path: str, report: Report) -> T | None:
        """Read the section, or the scalar as its key."""
        if not isinstance(node, Scalar) or is_null(node):
            return self.section.read(node, path, report)
        (only,) = (k for k in keys(self.section.type) if k.name == self.key)
        report.origins[path] = node.place
        return self.section.type(**{self.key: only.kind.read(node, path, report)})

    def show(self, value: T) -> Any:
        """Return the mapping."""
        return self.section.show(value)

    def json_schema(self) -> JsonSchema:
        """Return both forms."""
        (only,) = (k for k in keys(self.section.type) if k.name == self.key)
        return {"anyOf": [only.kind.json_schema(), self.section.json_schema()]}


@dataclass(frozen=True)
class Switch(Kind[T | bool]):
    """A section, or ``true`` or ``false``."""

    section: Section[T]
    expects: str = "true, false or a mapping"

    def read(self, node: Node, path: str, report: Report) -> T | bool | None:
        """Read the section, or the boolean."""
        if isinstance(node, Table):
            return self.section.read(node, path, report)
        report.origins[path] = node.place
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return node.value
        report.wrong(node, path, self.expects)
        return None

    def show(self, value: T | bool) -> Any:
        """Return the mapping or the boolean."""
        return value if isinstance(value, bool) else self.section.show(value)

    def json_schema(self) -> JsonSchema:
        """Return both forms."""
        return {"anyOf": [{"type": "boolean"}, self.section.json_schema()]}


@dataclass(frozen=True)
class OrSection(Kind[Any]):
    """A scalar of some kind, or a section; ``what`` names the section in errors and in the reference."""

    kind: Kind[Any]
    section: Section[Any]
    what: str

    @property
    def expects(self) -> str:
        return f"{self.kind.expects}, or {self.what}"

    def read(self, node: Node, path: str, report: Report) -> Any:
        """Read the section, or the scalar."""
        if isinstance(node, Table):
            return self.section.read(node, path, report)
        if isinstance(node, Items):
            report.wrong(node, path, self.expects)
            return None
        return self.kind.read(node, path, report)

    def show(self, value: Any) -> Any:
        """Return the mapping or the scalar."""
        is_section = isinstance(value, self.section.type)
        return self.section.show(value) if is_section else self.kind.show(value)

    def json_schema(self) -> JsonSchema:
        """Return both forms."""
        return {"anyOf": [*self.kind.json_schema()["anyOf"], self.section.json_schema()]}


@dataclass(frozen=True)
class ListOf(Kind[tuple[T, ...]]):
    """A list; a single item stands for a list of one."""

    item: Kind[T]
    at_least: int = 0

    @property
    def expects(self) -> str:
        return f"{self.item.expects}, or a list of those"

    def read(self, node: Node, path: str, report: Report) -> tuple[T, ...] | None:
        """Read each item; its path has its index."""
        report.origins[path] = node.place
        if not isinstance(node, Items):
            one = self.item.read(node, path, report)
            return None if one is None else (one,)
        if len(node.nodes) < self.at_least:
            report.mistake(node.place, path, f"expected at least {self.at_least} in the list, got none")
        found = (self.item.read(item, f"{path}[{n}]", report) for n, item in enumerate(node.nodes))
        return tuple(found)  # type: ignore[arg-type] # None only after a mistake

    def show(self, value: tuple[T, ...]) -> Any:
        """Return a list."""
        return [self.item.show(item) for item in value]

    def json_schema(self) -> JsonSchema:
        """Return both forms."""
        item = open_schema(self.item.json_schema())
        return {"anyOf": [item, {"type": "array", "items": item, "minItems": self.at_least}]}


@dataclass(frozen=True)
class MapOf(Kind[Mapping[str, T]]):
    """A mapping with names of the user's choice, or with some of the ``names`` only."""

    value: Kind[T]
    name: str = r"[^\0]+"
    name_expects: str = "a name"
    names: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    expects: str = "a mapping"

    def read(self, node: Node, path: str, report: Report) -> Mapping[str, T] | None:
        """Read each value; one that is null is left out."""
        report.origins[path] = node.place
        if not isinstance(node, Table):
            report.wrong(node, path, self.expects)
            return None
        values: dict[str, T] = {}
        for name, entry in node.entries.items():
            if self.names and name not in self.names:
                unknown_key(entry.place, path, name, list(self.names), self.later, report)
            elif not re.fullmatch(self.name, name):
                report.mistake(entry.place, path, f'expected {self.name_expects} as key, got "{name}"')
            elif not is_null(entry.node):
                value = self.value.read(entry.node, join(path, name), report)
                if value is not None:
                    values[name] = value
        return MappingProxyType(values)

    def show(self, value: Mapping[str, T]) -> Any:
        """Return a dict."""
        return {name: self.value.show(item) for name, item in value.items()}

    def json_schema(self) -> JsonSchema:
        """Return an object with the names, or with any."""
        item = open_schema(self.value.json_schema())
        if self.names:
            return {
                "type": "object",
                "properties": dict.fromkeys(self.names, item),
                "additionalProperties": False,
            }
        return {"type": "object", "additionalProperties": item}
