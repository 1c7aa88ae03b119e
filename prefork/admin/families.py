"""Metric families as they fill up: values in, prometheus-client's objects out.

Runs only in the admin process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from prefork.admin.metric_table import BY_NAME, TABLE


class Families:
    """The families of one scrape. What is unknown is left out."""

    def __init__(self) -> None:
        self._made: dict[str, Metric] = {}

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """Add a value of a metric of the table, with its labels in their order; None is unknown."""
        if value is not None:
            self._add(name, name, value, labels)

    def add_histogram(
        self, name: str, bounds: Sequence[float], counts: Sequence[int], total: float, *labels: str
    ) -> None:
        """Add a histogram; ``counts`` are of each bucket alone, with one more than there are bounds."""
        edges = [*map(floatToGoString, bounds), "+Inf"]
        cumulated = list(accumulate(counts))
        for edge, count in zip(edges, cumulated, strict=True):
            self._add(name, f"{name}_bucket", count, labels, edge)
        self._add(name, f"{name}_count", cumulated[-1], labels)
        self._add(name, f"{name}_sum", total, labels)

    def _add(self, name: str, sample: str, value: float, labels: Sequence[str], edge: str = "") -> None:
        family = BY_NAME[name]
        metric = self._made.get(name)
        if metric is None:
            metric = self._made[name] = Metric(family.base, family.meaning, family.type, family.unit)
        named = dict(zip(family.labels, labels, strict=True))
        if edge:
            named["le"] = edge
        metric.samples.append(Sample(sample, named, value))

    def __iter__(self) -> Iterator[Metric]:
        """Yield those that have a value, in the order of the table."""
        return (self._made[family.name] for family in TABLE if family.name in self._made)
