"""The part of the schema that says how long a worker lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefork.config.composites import key
from prefork.config.kinds import Integer
from prefork.config.quantities import Duration, Share, Size

MIB = 1 << 20


@dataclass(frozen=True)
class Recycle:
    """When a worker is replaced by a fresh one, which is ready before the old one drains; 0 is never."""

    requests: int = key(
        0, Integer(0, 1_000_000_000), "After so many requests (connections of a service). 0: never."
    )
    jitter: float = key(
        "10%", Share(), "Each worker takes up to this share more of `requests` and `lifetime`, by chance."
    )
    lifetime: float = key(0, Duration(1, 366 * 86400, or_zero=True), "After so long. 0: never.")
    memory: int = key(
        0,
        Size(MIB, 1024 * 1024 * MIB, or_zero=True),
        "When it uses more memory that it shares with nobody (USS). 0: never.",
    )
    LATER: ClassVar = ("pressure",)
