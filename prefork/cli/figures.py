"""Numbers as people read them in a terminal: short, and of a known width.

Pure. Runs in a command.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNKNOWN = "-"


def duration(seconds: float | None) -> str:
    """Return at most five characters: ``840us``, ``12ms``, ``3.4s``, ``5m02``, ``3h07``, ``12d``."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.000_999_5:
        return f"{seconds * 1e6:.0f}us"
    if seconds < 0.009_95:
        return f"{seconds * 1e3:.1f}ms"
    if seconds < 0.999_5:
        return f"{seconds * 1e3:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    return f"{whole // 86400}d"


def size(size_bytes: int | None) -> str:
    """Return at most five characters: ``512B``, ``64K``, ``23.4M``, ``1.2G``."""
    if size_bytes is None:
        return UNKNOWN
    value = float(size_bytes)
    for unit in "BKMGT":
        if value < 999.5 or unit == "T":
            return f"{value:.0f}{unit}" if unit == "B" or value >= 99.95 else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("the loop returns")


def count(number: int | None) -> str:
    """Return at most six characters: ``98765``, ``1234k``, ``56.7M``."""
    if number is None:
        return UNKNOWN
    if number < 100_000:
        return str(number)
    if number < 10_000_000:
        return f"{number // 1000}k"
    return f"{number / 1e6:.1f}M" if number < 1e9 else f"{number / 1e9:.1f}G"


def rate(per_s: float | None) -> str:
    """Return at most six characters: ``0``, ``0.3``, ``12``, ``4567``, ``23.4k``."""
    if per_s is None:
        return UNKNOWN
    if 0 < per_s < 9.95:
        return f"{per_s:.1f}"
    return f"{per_s:.0f}" if per_s < 9999.5 else f"{per_s / 1000:.1f}k"


def share(part: float | None) -> str:
    """Return at most five characters: ``7%``, ``100%``."""
    return UNKNOWN if part is None else f"{part * 100:.0f}%"


def printable(text: str) -> str:
    """Return a text that a client may have chosen, without anything that could steer a terminal."""
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def whose(death: Mapping[str, Any]) -> str:
    """Return who has died: the slot of a worker, or the pool of a mold, which has none."""
    return str(death["slot"] or f"{death['pool']} mold")


def how(death: Mapping[str, Any]) -> str:
    """Return what ended it: the name of a signal, or its exit status."""
    return str(death["signal"] or f"exit status {death['exit_status']}")
