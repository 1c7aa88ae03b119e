"""What both ends of the control socket know: its version, its names, its limits. See docs/reference/control.md.

Lines of JSON: a request, then any number of lines ``progress``, then one line ``end``. Used by the master and by
commands.
"""

from __future__ import annotations

import json
from typing import Any

VERSION = 1

PREFIX = "prefork-"
"""What the name of a socket begins with that ``control: auto`` has placed, and by which commands find it."""

LONGEST_REQUEST_BYTES = 16 * 1024


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def shown(address: str) -> str:
    """Return an address as people write it: an abstract one begins with ``@``."""
    return f"@{address[1:]}" if address.startswith("\0") else address


def from_shown(text: str) -> str:
    """Return what ``connect`` takes for what people write."""
    return f"\0{text[1:]}" if text.startswith("@") else text
