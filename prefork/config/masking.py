"""Secrets of a config, hidden: values from files, keys that are secrets, variables whose name looks so,
passwords in URLs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from prefork.config.nodes import join

MASK: Final = "***"

_FREE_NAMES: Final = re.compile(r"(?:^|\.)(?:env|log\.fields)\.(?P<name>.+)$")
_SECRET_NAME: Final = re.compile(
    r"pass(?!enger)|pwd|secret|token|credential|private|auth(?!or)|dsn|salt|signature|cookie|(?:^|[_-])key(?:$|[_-])|apikey",
    re.IGNORECASE,
)
_URL_PASSWORD: Final = re.compile(r"(://[^:/?#@\s]*:)[^@\s]+(?=@)")


def masked(value: Any, path: str, secrets: Collection[str]) -> Any:
    """Return a value of a config with ``***`` for each secret; ``secrets`` are paths of values from files."""
    if isinstance(value, Mapping):
        return {name: masked(each, join(path, name), secrets) for name, each in value.items()}
    if isinstance(value, list):
        return [masked(each, f"{path}[{n}]", secrets) for n, each in enumerate(value)]
    if not isinstance(value, str):
        return value
    free = _FREE_NAMES.search(path)
    if path in secrets or (value and free and _SECRET_NAME.search(free["name"])):
        return MASK
    return _URL_PASSWORD.sub(rf"\g<1>{MASK}", value)
