"""A bounded memo for pure functions of bytes or strings.

Kept-alive clients send the same header block again and again, and applications answer with the same
few header names; remembering the result makes the strict parser as cheap as a lenient one.
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
