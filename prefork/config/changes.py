"""What differs between two configs: for people, and what of it a reload cannot apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prefork.config.assemble import plain
from prefork.config.composites import Section, keys
from prefork.config.masking import MASK, masked
from prefork.config.nodes import join
from prefork.config.schema import Config


@dataclass(frozen=True, slots=True)
class Change:
    """A key with what it was and what it is, in the config's notation and without secrets; None: it is not set."""

    key: str
    old: Any
    new: Any
    applies: str
    """``reload`` or ``restart``"""


def needs_restart(old: Config, new: Config) -> tuple[str, ...]:
    """Return the paths of the keys that differ and apply only on restart, such as ``log.to``."""
    return tuple(_different(Config, old, new, "", inherits=False))


def in_force(started_with: Config, reloaded: Config) -> Config:
    """Return what a server does that was started with one config and reloaded to another."""
    held = {key.name: getattr(started_with, key.name) for key in keys(Config) if not key.on_reload}
    return replace(reloaded, **held)


def changes(old: Config, new: Config) -> tuple[Change, ...]:
    """Return what differs; a pool that only one of them has is one change."""
    restart = needs_restart(old, new)
    before, after = dict(_leaves(plain(old), "")), dict(_leaves(plain(new), ""))
    common = {pool.name for pool in old.pools} & {pool.name for pool in new.pools}
    plain_name = _plain_name(old) if _plain_name(old) == _plain_name(new) else None
    found = []
    for path in dict.fromkeys((*before, *after)):
        pool = path.split(".")[1] if path.startswith("pools.") else None
        if before.get(path) == after.get(path) or (pool is not None and pool not in common):
            continue
        key = path.removeprefix(f"pools.{plain_name}.")
        applies = "restart" if any(f"{key}.".startswith(f"{each}.") for each in restart) else "reload"
        old_shown, new_shown = (
            _shown(values.get(path), path, config) for values, config in ((before, old), (after, new))
        )
        found.append(Change(key, old_shown, new_shown, applies))
    for name in sorted({pool.name for pool in (*old.pools, *new.pools)} - common):
        app_before, app_after = before.get(f"pools.{name}.app"), after.get(f"pools.{name}.app")
        found.append(Change(f"pools.{name}", app_before, app_after, "reload"))
    return tuple(found)


def _plain_name(config: Config) -> str | None:
    """Return the name of the one pool of a config without ``pools``."""
    [first, *others] = config.pools
    return first.name if not others and first.name == config.name else None


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each value that is no mapping, by its path; of a list of mappings each, by what it begins with."""
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from _leaves(each, join(path, name))
    elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        for each in value:
            yield from _leaves(each, f"{path}[{next(iter(each.values()))}]")
    else:
        yield path, value


def _shown(value: Any, path: str, config: Config) -> Any:
    """Return the value without secrets, however the config was written: with pools or without."""
    _, _, below = path.removeprefix("pools.").partition(".")
    secrets = config.secrets
    shown = masked(masked(value, path, secrets), below if path.startswith("pools.") else path, secrets)
    begins = tuple(f"{each}[" for each in (path, below) if each)
    return MASK if value is not None and any(each.startswith(begins) for each in secrets) else shown


def _different(section: type[Any], old: Any, new: Any, path: str, *, inherits: bool) -> Iterator[str]:
    for key in keys(section):
        before, after = getattr(old, key.name), getattr(new, key.name)
        if before == after or (key.on_reload and not inherits):
            continue
        if isinstance(key.kind, Section):
            yield from _different(key.kind.type, before, after, join(path, key.name), inherits=True)
        else:
            yield join(path, key.name)
