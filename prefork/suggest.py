"""The nearest known name for a wrong one, as the tail of an error message; pure, for every process."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like the wrong one, or None when none is near."""
    found = difflib.get_close_matches(wrong, sorted(known), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "NAME"?`` for the nearest known name, or nothing."""
    name = nearest(wrong, known)
    return f'; did you mean "{name}"?' if name else ""
