"""A bounded memo for pure functions of bytes or strings.

Clients send the same heads and lines again and again, and applications answer with the same few header
names; remembering the result makes the strict parser as cheap as a lenient one.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(dict[K, V]):
    """A dict that forgets everything when it is full.

    Clearing costs nothing to keep up per request, unlike an order of use, and a stranger who sends ever new
    keys can only make it useless, not large. Read it with ``get``: reading is a plain dict's.
    """

    def __init__(self, entries: int) -> None:
        super().__init__()
        self._entries = entries

    def remember(self, key: K, value: V) -> V:
        """Store and return ``value``."""
        if len(self) >= self._entries:
            self.clear()
        self[key] = value
        return value


class RepeatMemo(Memo[K, V]):
    """A memo of what comes more than once: what never comes again is not kept, and drives nothing out."""

    def __init__(self, entries: int) -> None:
        super().__init__(entries)
        self._seen = [0] * (4 * entries)
        """Hashes of what came of late, each in the place that it stands for itself."""

    def is_repeated(self, key: K) -> bool:
        """Tell whether ``key`` was asked for before, of late."""
        mark = hash(key)
        seen = self._seen
        place = mark % len(seen)
        if seen[place] == mark:
            return True
        seen[place] = mark
        return False
