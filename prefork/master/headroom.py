"""How much memory the control group has left, and how many more workers that is. Runs in the master."""

from __future__ import annotations

from collections.abc import Sequence

from prefork.figures import Memory
from prefork.master.cgroup import MemoryUse


def room_for_workers(use: MemoryUse | None, share: float, siblings: Sequence[Memory]) -> int | None:
    """Return how many workers more fit below ``share`` of the limit; None if nothing limits them, or is known.

    Each is counted as the biggest of its siblings, and so are the siblings themselves: a worker that is new has
    not yet copied the pages that it will.
    """
    if use is None or not siblings:
        return None
    biggest = max(memory.uss_bytes for memory in siblings)
    to_come = sum(biggest - memory.uss_bytes for memory in siblings)
    free_bytes = int(use.limit_bytes * share) - use.used_bytes - to_come
    return max(0, free_bytes // max(1, biggest))
