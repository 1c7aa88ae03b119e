"""Write docs/performance.md and its plot from the runs."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.measure import CONNECTIONS, Result
from bench.plot import plot
from bench.scenarios import SCENARIOS, Scenario
from bench.servers import ROOT, SERVERS, Server

PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "performance.svg"
RIVALS = ("granian", "bjoern", "gunicorn gthread")


@dataclass
class Runs:
    """What was measured, how, and what could not be."""

    seconds: float
    versions: Mapping[str, str]
    load: Path
    load_average: float
    results: dict[tuple[Server, Scenario], list[Result]] = field(default_factory=dict)
    left_out: dict[tuple[Server, Scenario], str] = field(default_factory=dict)

    def cpu_us(self, server: Server, scenario: Scenario) -> float | None:
        """Return the median, None if it was left out."""
        if (server, scenario) in self.left_out or (server, scenario) not in self.results:
            return None
        return median(result.cpu_us for result in self.results[server, scenario])


def write(runs: Runs) -> None:
    """Replace the page and the plot by ones about these runs."""
    panels = {}
    for scenario in SCENARIOS:
        costs = {server.name: runs.cpu_us(server, scenario) for server in SERVERS}
        panels[scenario.title] = {name: cost for name, cost in costs.items() if cost is not None}
    PLOT.write_text(plot(panels))
    PAGE.write_text("\n".join(page(runs, panels)) + "\n")
    print(f"written to {PAGE.relative_to(ROOT)}")


def page(runs: Runs, panels: Mapping[str, Mapping[str, float]]) -> Iterable[str]:
    """Yield the lines of the page."""
    rounds = max(len(results) for results in runs.results.values())
    yield "# Performance"
    yield ""
    yield "<!-- Written by `make bench`; change bench/ instead of this page. -->"
    yield ""
    yield "One worker on one core answers; the load comes from another core, over loopback, on"
    yield f"{CONNECTIONS} connections, as fast as answers come. What counts is the **CPU time per request** of all"
    yield "of the server's processes: it says how much of a machine is left for the application. The application's own"
    yield "time is part of it, and the same for all."
    yield ""
    yield f"Machine: {machine()}. Figures are medians of {rounds} alternating runs of {runs.seconds:g} s."
    yield f"Before the first one the load average was {runs.load_average:.1f}: {others(runs.load_average)}"
    yield "Compare rows, not machines. Starved connections got no answer at all while the server kept to others:"
    yield "p99, which is of answers, does not show that."
    yield ""
    yield f"![CPU time per request, for each server and scenario]({PLOT.name})"
    yield ""
    yield "## In short"
    yield ""
    yield "CPU time per request of prefork, and in times of others' (below 1: prefork is cheaper):"
    yield ""
    yield f"| scenario | prefork, µs | {' | '.join(f'of {rival}' for rival in RIVALS)} |"
    yield f"|---|---:|{'---:|' * len(RIVALS)}"
    for title, costs in panels.items():
        if "prefork" in costs:
            ours = costs["prefork"]
            ratios = [f"{ours / costs[rival]:.2f}" if rival in costs else "–" for rival in RIVALS]
            yield f"| {title} | {ours:.1f} | {' | '.join(ratios)} |"
    for scenario in SCENARIOS:
        yield ""
        yield f"## {scenario.title[0].upper()}{scenario.title[1:]}"
        yield ""
        if scenario.about:
            yield scenario.about
            yield ""
        yield "| server | CPU µs per request (span) | requests/s | p99, ms | errors | starved |"
        yield "|---|---:|---:|---:|---:|---:|"
        for server in SERVERS:
            if server.name in panels[scenario.title]:
                yield row(server, runs.versions[server.package], runs.results[server, scenario])
        reasons = [f"{s.name} ({why})" for (s, other), why in runs.left_out.items() if other == scenario]
        if reasons:
            yield ""
            yield f"Left out: {', '.join(reasons)}."


def row(server: Server, version: str, results: list[Result]) -> str:
    """Return a line of the table."""
    cpu = [result.cpu_us for result in results]
    name = f"**{server.name}**" if server.name == "prefork" else server.name
    return (
        f"| {f'{name} {version}'.rstrip()} | {median(cpu):.1f} ({min(cpu):.1f}–{max(cpu):.1f})"
        f" | {median(result.requests_per_s for result in results):,.0f}"
        f" | {median(result.p99_ms for result in results):.2f} | {sum(result.errors for result in results)}"
        f" | {max(result.starved for result in results)} of {CONNECTIONS} |"
    )


def others(load_average: float) -> str:
    """Say what a load average means for the figures."""
    if load_average < 0.5:
        return "hardly anything else ran."
    return "other work used the cores, and may have disturbed the figures, rates and p99 most."


def machine() -> str:
    """Describe the machine in words."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = model[1] if model else platform.machine()
    release = platform.release().split("-")[0]
    return (
        f"{len(os.sched_getaffinity(0))} cores, {name}, Linux {release}, CPython {platform.python_version()}"
    )


def fill(page: Path, module: str, text: str) -> None:
    """Replace the part of a page that a module has written."""
    begin, end = f"<!-- Written by `python -m {module}`. -->\n", "<!-- End of what is written. -->"
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + text + end + rest.split(end, 1)[1])
    print(f"written to {page.relative_to(ROOT)}")
