"""What differs between two configs that a reload cannot apply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prefork.config.composites import Section, keys
from prefork.config.nodes import join
from prefork.config.schema import Config


def needs_restart(old: Config, new: Config) -> tuple[str, ...]:
    """Return the paths of the keys that differ and apply only on restart, such as ``log.to``."""
    return tuple(_different(Config, old, new, "", inherits=False))


def _different(section: type[Any], old: Any, new: Any, path: str, *, inherits: bool) -> Iterator[str]:
    for key in keys(section):
        before, after = getattr(old, key.name), getattr(new, key.name)
        if before == after or (key.on_reload and not inherits):
            continue
        if isinstance(key.kind, Section):
            yield from _different(key.kind.type, before, after, join(path, key.name), inherits=True)
        else:
            yield join(path, key.name)
