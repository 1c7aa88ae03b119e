"""What a reader of the scoreboard gets: the requests that run, a worker's connections, memory and counters.

Plain values, as they also go into JSON and into the records of an upgrade. What is counted when is said here and in
docs/reference/counters.md. Used by master, workers and the admin process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "other")
"""Methods that are counted apart; no label of a metric comes from a client."""
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")

REFUSALS = MappingProxyType(
    {
        "malformed": "400: not HTTP as the standards have it, or contradictory words of a trusted proxy",
        "unsupported": "417, 501, 505: an expectation, method, transfer coding or version that prefork does not know",
        "head-too-large": "414, 431: above `limits.request_line`, `limits.fields` or `limits.head`",
        "body-too-large": "413: above `limits.body`, or more than `limits.spool` could ever hold",
        "head-timeout": "408: `timeouts.head`",
        "body-timeout": "408: `timeouts.body`",
        "no-room": "503, 507: `limits.memory` or `limits.spool` is used up",
        "queue-timeout": "503: `timeouts.queue`",
        "proxy-header": "closed: no PROXY header, a malformed one, or one from somebody who is not in `proxy.trust`",
        "tls": "closed: a handshake that failed or was not complete within `timeouts.head`; 400: plain HTTP",
        "slow-reader": "reset: it took nothing for `timeouts.send`, or held up a worker that had no room",
        "connections": "closed while idle, to make room for a new one: `limits.connections`, or open files",
        "application": "closed: `verify_request` of a service said no",
    }
)
"""Why a client is not served, or no further, and what it gets."""

BUCKETS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds of the latency histograms in seconds, if the config names no others; one more holds what is longer."""

MOST_BUCKETS = 24
"""So many bounds there may be."""

OVER_NS = 1 << 62
"""Stands for the bound of the last bucket, that has none."""

MOST = 1 << 53
"""No counter and no size is that large; JSON's numbers are exact up to here."""

Tally = Mapping[str, int]
Histogram = Mapping[int, int]
"""How many took at most so many nanoseconds, and more than the next smaller bound. Only what is not zero."""

_NONE: Mapping[Any, Any] = MappingProxyType({})


class Running(NamedTuple):
    """A request that runs now; instants are ``time.monotonic_ns()``, 0 for none."""

    thread: int
    start_ns: int
    deadline_ns: int
    """0, too, if the worker has dealt with it."""
    slow_ns: int
    """When it is to be told of as slow for the first or the next time."""
    line: str
    slow_from_ns: int = 0
    """Since when, or from when, it counts as slow."""
    request_id: str = ""
    """Empty as long as it has run for a moment only."""


class Connections(NamedTuple):
    """The open connections of a worker, by what they wait for; together all that are open."""

    idle: int = 0
    """For the first byte of a request."""
    reading: int = 0
    """For the rest of a request, of a handshake or of a PROXY header."""
    running: int = 0
    """For the application, or for a thread of it."""
    writing: int = 0
    """For the client to take a response, or to end the connection after the last one."""

    def plus(self, other: Connections) -> Connections:
        return Connections(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Memory(NamedTuple):
    """What a worker uses, as it has measured itself."""

    rss_bytes: int
    pss_bytes: int
    uss_bytes: int
    """What it shares with nobody, and what its end would free."""


class Counts(NamedTuple):
    """Counters since the worker began (or, for a fold, of all dead workers of a pool). Each only grows."""

    requests: int = 0
    """That the application was called for, at the end of the call; so the ones below, unless they say otherwise."""
    errors: int = 0
    """Of these, 5xx."""
    accepted: int = 0
    """Connections from listeners."""
    handed_over: int = 0
    """Connections that went to another worker."""
    adopted: int = 0
    """Connections that came from another worker."""
    slow: int = 0
    """Requests that took longer than ``timeouts.slow``, each once: at the first report, or at the end."""
    deadlines: int = 0
    """Requests whose deadline has passed, when that was acted upon."""
    received_bytes: int = 0
    """Heads and bodies of all requests as they came, refused ones too, when they were read."""
    sent_bytes: int = 0
    """Bodies of the application's responses, without heads and framing."""
    by_method: Mapping[str, Tally] = _NONE
    """Requests by method, then by class of status; only what is not zero."""
    refused: Tally = _NONE
    """By one of ``REFUSALS``; only what is not zero."""
    application: Histogram = _NONE
    """How long the application took."""
    application_ns: int = 0
    exchange: Histogram = _NONE
    """How long it took from the first byte of the request to the last of the response, when that was handed to the
    kernel or the client was gone."""
    exchange_ns: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(*map(_sum, self, other))

    def is_credible(self) -> bool:
        """Could these be counted, or is it nonsense that somebody has written into the scoreboard?"""
        times_ns = self.application_ns, self.exchange_ns
        return max(times_ns) < OVER_NS and all(map(_is_small, self._replace(application_ns=0, exchange_ns=0)))


def _is_small(value: Any) -> bool:
    return value < MOST if isinstance(value, int) else all(map(_is_small, value.values()))


def _sum(mine: Any, theirs: Any) -> Any:
    if isinstance(mine, int):
        return mine + theirs
    return {**mine, **{key: _sum(mine[key], each) if key in mine else each for key, each in theirs.items()}}


def bounds_ns(bounds_s: Sequence[float]) -> tuple[int, ...]:
    """Return bounds of buckets in nanoseconds. Raises ``ValueError`` if they cannot be such."""
    bounds = tuple(round(bound * 1e9) for bound in bounds_s)
    if not 0 < len(bounds) <= MOST_BUCKETS or bounds[0] <= 0 or list(bounds) != sorted(set(bounds)):
        raise ValueError(
            f"the bounds of a histogram must be 1 to {MOST_BUCKETS} positive rising numbers, not {bounds_s!r}"
        )
    return bounds


def in_buckets(histogram: Histogram, bounds: Sequence[int]) -> list[int]:
    """Return the counts for ``bounds`` in nanoseconds, not cumulative, with one more for what is longer.

    What was counted with other bounds, before a reload changed them, is in the bucket that surely holds it.
    """
    counts = [0] * (len(bounds) + 1)
    for bound, count in histogram.items():
        counts[bisect_left(bounds, bound)] += count
    return counts


def refusals_as_markdown() -> list[str]:
    """Return the table of refusals for the documentation."""
    rows = (f"| `{reason}` | {what} |" for reason, what in REFUSALS.items())
    return ["| reason | what the client got, and why |", "|---|---|", *rows]
