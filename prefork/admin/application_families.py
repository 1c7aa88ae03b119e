"""Values of the application's metrics, from the entries of many files to families of prometheus-client's.

Runs only in the admin process. Pure. The application has written the entries: one that is no metric is skipped, and so
is what would clash with a metric of prefork's, or has the name of another type.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

RESERVED = "prefork_"
"""What our own names begin with."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
"""Names that begin with two underlines are Prometheus' own: it refuses a whole answer for a label ``__name__``."""
_SUFFIXES = {
    "counter": ("_total", "_created"),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("", "_count", "_sum"),
}
"""What the names of samples add to that of their family, by its type."""

Labels = tuple[tuple[str, str], ...]


class Values:
    """The values of many processes, each kept as its type asks for; keys are the files'."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], tuple[float, float]] = {}

    def add(self, type: str, key: str, process: str, value: float, timestamp: float) -> None:
        """Add a value of a process; ``timestamp`` matters to gauges that show the newest."""
        place = type, key, process if type.endswith("all") else ""
        known = self._found.get(place)
        self._found[place] = (value, timestamp) if known is None else _both(type, known, (value, timestamp))

    def add_all(self, other: Values) -> None:
        """Add the values of other processes."""
        for (type, key, process), (value, timestamp) in other._found.items():
            self.add(type, key, process, value, timestamp)

    def of(self, type: str) -> Iterator[tuple[str, float, float]]:
        """Yield key, value and time of each value of a type."""
        for (other, key, _), (value, timestamp) in self._found.items():
            if other == type:
                yield key, value, timestamp

    def __iter__(self) -> Iterator[tuple[str, str, str, float, float]]:
        for (type, key, process), (value, timestamp) in self._found.items():
            yield type, key, process, value, timestamp


def _both(type: str, one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return what one value and another of the same metric make together."""
    if type.endswith("mostrecent"):
        return max(one, other, key=lambda pair: pair[1])
    if type.endswith("min"):
        return min(one, other)
    if type.endswith("max"):
        return max(one, other)
    if type.endswith("all"):
        return other
    return one[0] + other[0], 0.0


class _Family:
    """A family of one type under one name, of all pools."""

    def __init__(self, type: str, meaning: str) -> None:
        self.type = type
        self.meaning = meaning
        self.values: dict[tuple[str, Labels], tuple[float, float]] = {}


def families(of_pools: Mapping[str, Values], skipped: dict[str, int]) -> list[Metric]:
    """Return the families of all pools, each sample with the label ``pool``; count in ``skipped`` what is left out.

    The first type of a name counts. Values come with those of living processes first, so that is the newest program's.
    """
    found: dict[str, _Family] = {}
    taken: set[str] = set()
    """All names that belong to one of them, so that no sample can be of two."""
    for pool, values in of_pools.items():
        left_out = set()
        for type, key, process, value, timestamp in values:
            entry = _parse(type, key)
            if entry is None or entry.sample.startswith(RESERVED):
                left_out.add(key if entry is None else entry.family)
                continue
            family = found.get(entry.family)
            if family is None and taken.isdisjoint(names := _names(type, entry.family)):
                taken |= names
                family = found[entry.family] = _Family(type, entry.meaning)
            if family is None or family.type != type:
                left_out.add(entry.family)
                continue
            labels = {**entry.labels}
            if "pool" in labels:  # as Prometheus does with a label that it has to set itself
                labels["exported_pool"] = labels.pop("pool")
            labels["pool"] = pool
            if type.endswith("all"):
                labels["pid"] = process
            place = entry.sample, tuple(sorted(labels.items()))
            known = family.values.get(place)
            both = (value, timestamp) if known is None else _both(type, known, (value, timestamp))
            family.values[place] = both
        skipped[pool] = skipped.get(pool, 0) + len(left_out)
    return [_metric(name, found[name]) for name in sorted(found)]


def _metric(name: str, family: _Family) -> Metric:
    plain = family.type.partition("_")[0]
    metric = Metric(name, family.meaning, plain)
    if plain == "histogram":
        metric.samples = list(_histogram(name, family.values))
    else:
        metric.samples = [
            Sample(sample, dict(labels), value) for (sample, labels), (value, _) in family.values.items()
        ]
    return metric


def _histogram(name: str, values: Mapping[tuple[str, Labels], tuple[float, float]]) -> Iterator[Sample]:
    """Yield the samples of a histogram, of which the files have each bucket alone and no count."""
    buckets: dict[Labels, dict[float, float]] = {}
    sums: dict[Labels, float] = {}
    for (sample, labels), (value, _) in values.items():
        edge = dict(labels).get("le")
        rest = tuple(label for label in labels if label[0] != "le")
        if edge is None:
            if sample == f"{name}_sum":
                sums[rest] = value
        elif (bound := _number(edge)) is not None:
            of_these = buckets.setdefault(rest, {math.inf: 0.0})
            of_these[bound] = of_these.get(bound, 0.0) + value
    for labels, counts in buckets.items():
        total = 0.0
        for bound in sorted(counts):
            total += counts[bound]
            yield Sample(f"{name}_bucket", {**dict(labels), "le": floatToGoString(bound)}, total)
        yield Sample(f"{name}_count", dict(labels), total)
        if labels in sums:
            yield Sample(f"{name}_sum", dict(labels), sums[labels])


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return None if math.isnan(found) else found


class _Entry(NamedTuple):
    family: str
    sample: str
    labels: dict[str, str]
    meaning: str


def _samples(type: str, family: str) -> tuple[str, ...]:
    return tuple(family + suffix for suffix in _SUFFIXES[type.partition("_")[0]])


def _names(type: str, family: str) -> set[str]:
    """Return the names that belong to a family: its own, and those of its samples."""
    return {family, *_samples(type, family)}


def _parse(type: str, key: str) -> _Entry | None:
    """Return what a key in a file of a type says; None if it is none."""
    try:
        family, sample, labels, meaning = json.loads(key)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (
        isinstance(labels, dict)
        and all(isinstance(t, str) for t in (family, sample, meaning, *labels.values()))
    ):
        return None
    if not (_NAME.fullmatch(family) and sample in _samples(type, family)):
        return None
    if not all(_LABEL.fullmatch(name) for name in labels):
        return None
    try:
        "".join((meaning, *labels.values())).encode()
    except UnicodeEncodeError:
        return None
    return _Entry(family, sample, labels, meaning)
