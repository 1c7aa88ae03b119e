"""Write docs/performance.md from the runs."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

from bench.measure import CONNECTIONS, SCENARIOS, Result, Scenario
from bench.servers import ROOT, SERVERS, Server

PAGE = ROOT / "docs" / "performance.md"

Runs = Mapping[tuple[Server, Scenario], list[Result]]


def write(runs: Runs, versions: Mapping[str, str], seconds: float) -> None:
    """Replace the page by one about these runs."""
    rounds = max(len(results) for results in runs.values())
    PAGE.write_text("\n".join(page(runs, versions, rounds, seconds)) + "\n")
    print(f"written to {PAGE.relative_to(ROOT)}")


def page(runs: Runs, versions: Mapping[str, str], rounds: int, seconds: float) -> Iterable[str]:
    """Yield the lines of the page."""
    yield "# Performance"
    yield ""
    yield "<!-- Written by `make bench`; change bench/ instead of this page. -->"
    yield ""
    yield "One worker on one core answers `Hello, world!`; the load comes from another core, over loopback, on"
    yield f"{CONNECTIONS} connections, as fast as answers come. What counts is the **CPU time per request** of all"
    yield "of the server's processes: it says how much of a machine is left for the application. Figures are medians of"
    yield f"{rounds} alternating runs of {seconds:g} s, with the span in parentheses. Compare rows, not machines."
    yield ""
    yield f"Machine: {machine()}."
    for scenario in SCENARIOS:
        rows = [(server, runs[server, scenario]) for server in SERVERS if (server, scenario) in runs]
        if rows:
            yield ""
            yield f"## {scenario.title.capitalize()}"
            yield ""
            yield "| server | CPU µs per request | requests/s | p99, ms | errors |"
            yield "|---|---:|---:|---:|---:|"
            yield from (row(server, versions[server.package], results) for server, results in rows)


def row(server: Server, version: str, results: list[Result]) -> str:
    """Return a line of the table."""
    cpu = [result.cpu_us for result in results]
    name = f"**{server.name}**" if server.name == "prefork" else server.name
    return (
        f"| {name} {version} | {median(cpu):.1f} ({min(cpu):.1f}–{max(cpu):.1f})"
        f" | {median(result.requests_per_s for result in results):,.0f}"
        f" | {median(result.p99_ms for result in results):.2f} | {sum(result.errors for result in results)} |"
    )


def machine() -> str:
    """Describe the machine in words."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = model[1] if model else platform.machine()
    release = platform.release().split("-")[0]
    return (
        f"{len(os.sched_getaffinity(0))} cores, {name}, Linux {release}, CPython {platform.python_version()}"
    )
