"""The part of the schema that says what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from prefork.config.composites import ListOf, key
from prefork.config.kinds import Boolean
from prefork.config.nodes import Node, Report
from prefork.config.quantities import Duration
from prefork.figures import BUCKETS_S, MOST_BUCKETS


class Bounds(ListOf[float]):
    """Upper bounds of a histogram, which rise."""

    @property
    def expects(self) -> str:
        """What each is, and their order."""
        return f"at most {MOST_BUCKETS} rising durations such as 5ms or 0.005"

    def read(self, node: Node, path: str, report: Report) -> tuple[float, ...] | None:
        """Read the list; it must rise."""
        bounds = super().read(node, path, report)
        if bounds is None or report.blames(path, *(f"{path}[{n}]" for n in range(len(bounds)))):
            return bounds
        if len(bounds) > MOST_BUCKETS or any(low >= high for low, high in pairwise(bounds)):
            report.mistake(node.place, path, f"expected {self.expects}, got {len(bounds)}: {_shown(bounds)}")
        return bounds


def _shown(bounds: tuple[float, ...]) -> str:
    return ", ".join(f"{bound:g}" for bound in bounds)


@dataclass(frozen=True)
class Metrics:
    """What is measured for `/metrics` of the admin listener."""

    buckets: tuple[float, ...] = key(
        list(BUCKETS_S),
        Bounds(Duration(0.0001, 86400), at_least=1),
        "Upper bounds of the histograms of latency.",
    )
    application: bool = key(
        True,
        Boolean(),
        "Collect what the application counts with prometheus-client, too: PROMETHEUS_MULTIPROC_DIR is set for it, "
        "unless it has one.",
    )
