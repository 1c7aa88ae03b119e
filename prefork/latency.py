"""Percentiles of a latency histogram.

Pure. Used by the commands; the page does the same in its own language.
"""

from __future__ import annotations

from collections.abc import Sequence


def percentile(bounds_s: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Return the duration in seconds below which ``share`` (0 to 1) of all observations lie; None without any.

    ``counts`` are of each bucket alone and have one more than there are upper bounds. Within a bucket the observations
    are taken as evenly spread; of those above the last bound no more is known than that, so it is returned for them.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    below = 0
    lower_s = 0.0
    for bound_s, count in zip(bounds_s, counts, strict=False):
        if count and below + count >= rank:
            return lower_s + (bound_s - lower_s) * (rank - below) / count
        below += count
        lower_s = bound_s
    return lower_s
