"""The effective config as YAML, for ``prefork check``: every value, and where it was set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prefork.config.assemble import plain
from prefork.config.load import Loaded
from prefork.config.masking import masked
from prefork.config.nodes import join, resolve

_PLAIN: Final = re.compile(r"[A-Za-z0-9_/.+~-](?:[A-Za-z0-9_/.+~:@%=-]*[A-Za-z0-9_/.+~@%=-])?")


def render(loaded: Loaded, show_secrets: bool = False) -> str:
    """Return the config as YAML that loads to the same config, if it has no masked secrets.

    Each value that was set is followed by ``# from app.yaml:3``. Masked are values that came from
    ``${file:…}``, variables whose name looks secret, and passwords in URLs.
    """
    tree = plain(loaded.config)
    if not loaded.has_pools:
        (pool,) = tree.pop("pools").values()
        name = {"name": tree.pop("name")}
        tree = {"app": pool.pop("app"), **name, **pool, **tree}
    return "".join(f"{line}\n" for line in _Renderer(loaded, show_secrets).table(tree, "", ""))


class _Renderer:
    """Writes plain data as block mappings, with lists in flow style where they are short."""

    def __init__(self, loaded: Loaded, show_secrets: bool) -> None:
        self._loaded = loaded
        self._show_secrets = show_secrets

    def table(self, table: Mapping[str, Any], path: str, indent: str) -> Iterator[str]:
        """Yield the lines of a mapping."""
        for name, value in table.items():
            below = join(path, name)
            if isinstance(value, Mapping) and value:
                yield f"{indent}{_text(name)}:"
                yield from self.table(value, below, indent + "  ")
            else:
                yield f"{indent}{_text(name)}: {self._inline(value, below)}{self._comment(below)}"

    def _inline(self, value: Any, path: str) -> str:
        """Return a value in flow style."""
        if isinstance(value, Mapping):
            return (
                "{"
                + ", ".join(f"{_text(k)}: {self._inline(v, join(path, k))}" for k, v in value.items())
                + "}"
            )
        if isinstance(value, list):
            return "[" + ", ".join(self._inline(v, f"{path}[{n}]") for n, v in enumerate(value)) + "]"
        return _word(self._masked(value, path))

    def _masked(self, value: Any, path: str) -> Any:
        return value if self._show_secrets else masked(value, path, self._loaded.secrets)

    def _comment(self, path: str) -> str:
        place = self._loaded.origins.get(path)
        return f"  # from {place.brief}" if place else ""


def _word(value: Any) -> str:
    """Return a value as YAML that neither YAML nor interpolation reads differently."""
    if not isinstance(value, str):
        return json.dumps(value)
    return _text(value.replace("$", "$$") if "${" in value or "$$" in value else value)


def _text(text: str) -> str:
    """Return text as YAML, quoted where it has to be."""
    if _PLAIN.fullmatch(text) and isinstance(resolve(text), str) and text[0] not in "-%@":
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)
