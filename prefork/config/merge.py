"""Several sources to one tree: later files and overrides win, mappings merge, lists and scalars replace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prefork.config.nodes import Entry, Node, Place, Report, Table, from_python
from prefork.config.yaml import Unreadable, parse
from prefork.errors import UsageError


@dataclass(frozen=True)
class Override:
    """A value that wins over the files: of a flag (``--set``, ``-w``) or a variable.

    ``path`` is the key's path with dots. ``value`` is plain data (text is converted to the type the key
    wants), or YAML text when ``is_yaml``. ``origin`` names the flag in errors and in ``prefork check``.
    """

    path: str
    value: object
    origin: str
    is_yaml: bool = False

    @classmethod
    def from_set(cls, argument: str, origin: str = "--set") -> Override:
        """Return the override of ``key.path=YAML``. Raises UsageError when there is no key or no ``=``."""
        path, equals, text = argument.partition("=")
        if not equals or not all(path.split(".")):
            raise UsageError(f'{origin}: expected key.path=VALUE, got "{argument}"')
        return cls(path.strip(), text, origin, is_yaml=True)

    def tree(self, report: Report) -> Table | None:
        """Return the override as a tree with one branch; a mistake in its YAML goes to the report."""
        place = Place(self.origin)
        node: Node | None
        if self.is_yaml:
            try:
                node = parse(str(self.value), self.origin, report, place=place)
            except Unreadable as error:
                report.mistake(place, self.path, error.message)
                return None
            node = node or from_python(None, place)
        else:
            node = from_python(self.value, place)
        for name in reversed(self.path.split(".")):
            node = Table(place, {name: Entry(place, node)})
        assert isinstance(node, Table)
        return node


def merge(lower: Node, upper: Node) -> Node:
    """Return both trees as one; ``upper`` wins where both have a value, even with a null, which resets."""
    if isinstance(lower, Table) and isinstance(upper, Table):
        return merge_tables(lower, upper)
    return upper


def merge_tables(lower: Table, upper: Table) -> Table:
    """Return both mappings as one, at the place of the lower."""
    entries = dict(lower.entries)
    for name, entry in upper.entries.items():
        known = entries.get(name)
        entries[name] = Entry(entry.place, merge(known.node, entry.node)) if known else entry
    return Table(lower.place, entries)


def merge_all(trees: Iterable[Table]) -> Table:
    """Return all trees as one, the last one winning."""
    result = Table(Place("command line"), {})
    for tree in trees:
        result = merge_tables(result, tree) if result.entries else tree
    return result
