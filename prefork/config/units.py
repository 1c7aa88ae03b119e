"""Durations, sizes, shares and file modes as people write them."""

from __future__ import annotations

import re

_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(B|KiB|MiB|GiB|TiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_MODE = re.compile(r"0?[0-7]{3}")
_PERCENT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)%")


def parse_duration(value: str | int | float) -> float | None:
    """Return seconds from ``250ms``, ``30s``, ``5m``, ``1h``, ``1d`` or a number of seconds, else None."""
    if not isinstance(value, str):
        return float(value)
    match = _DURATION.fullmatch(value)
    return float(match[1]) * _SECONDS[match[2]] if match else None


def format_duration(seconds: float) -> str:
    """Return the shortest exact form: ``250ms``, ``1.5s``, ``75s``, ``10m``."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    for unit in ("d", "h", "m"):
        count = seconds / _SECONDS[unit]
        if count >= (5 if unit == "m" else 1) and count.is_integer():
            return f"{count:g}{unit}"
    return f"{seconds:.10g}s"


def parse_size(value: str | int | float) -> int | None:
    """Return bytes from ``64KiB``, ``1MiB``, ``1GiB``, ``1TiB``, ``512B`` or an integer, else None."""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return None
    match = _SIZE.fullmatch(value)
    return int(float(match[1]) * _BYTES[match[2]]) if match else None


def format_size(size_bytes: int) -> str:
    """Return the largest exact unit: ``1MiB``, ``1536KiB``, ``1000B``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _BYTES[unit] == 0:
            return f"{size_bytes // _BYTES[unit]}{unit}"
    return f"{size_bytes}B"


def parse_mode(text: str) -> int | None:
    """Return a file mode from three octal digits, with or without the leading 0; None for anything else."""
    return int(text, 8) if _MODE.fullmatch(text) else None


def parse_share(text: str) -> float | None:
    """Return 0.25 from ``25%``; None for anything else."""
    match = _PERCENT.fullmatch(text)
    return float(match[1]) / 100 if match else None
