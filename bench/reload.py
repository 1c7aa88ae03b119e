"""``python -m bench.reload``: what clients see of a reload and of a stop, of prefork and of others.

The clients never check whether an idle connection was closed, so every close is a failure to one of them. Takes
about four minutes and writes a table into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from bench.crowd import Crowd, Failure, Step, steady
from bench.measure import running
from bench.pools import RELOADABLE, WORKERS
from bench.report import fill, machine
from bench.servers import HOME, ROOT, Server, install

PAGE = ROOT / "docs" / "reliability.md"
CLIENTS = 40
RELOAD_EVERY_S = 2.0
IMPORT_S = 3.0
STALL_RUN_S = 9.0
KEPT, FRESH, WORK_PATH = 32, 16, "/ms/50"
STOP_BOUND_S = 12.0


@dataclass
class Outcome:
    """What the clients of one server saw."""

    reloads: Crowd
    slow_import: Crowd
    stops: list[Crowd] = field(default_factory=list)
    stop_s: list[float] = field(default_factory=list)

    def of_stops(self, *, reused: bool) -> list[Failure]:
        """Return the failures of requests that were sent; who gets no connection knows to go elsewhere."""
        failures = itertools.chain.from_iterable(crowd.failures for crowd in self.stops)
        return [failure for failure in failures if failure.reused == reused and failure.kind != "refused"]


def main() -> int:
    """Measure and write the page, unless only some are asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.reload", description="Reload and stop under load.")
    parser.add_argument("--seconds", type=float, default=14.0, help="of reloads (default 14)")
    parser.add_argument("--stops", type=int, default=3, help="how often each is stopped (default 3)")
    parser.add_argument("--only", nargs="+", metavar="SERVER", help="these alone, and do not write the page")
    options = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    servers = [server for server in RELOADABLE if not options.only or server.name in options.only]
    versions = install(servers)
    outcomes = {}
    for server in servers:
        if server.package in versions:
            outcome = Outcome(reload_often(server, options.seconds), reload_slow_import(server))
            for _ in range(options.stops):
                crowd, took_s = stop(server)
                outcome.stops.append(crowd)
                outcome.stop_s.append(took_s)
            outcomes[server] = outcome
            print(row(server, versions[server.package], outcome), flush=True)
            print(
                f"  on reload {kinds(outcome.reloads.failures)}, slow import {kinds(outcome.slow_import.failures)}"
            )
            print(f"  on TERM {kinds([*outcome.of_stops(reused=True), *outcome.of_stops(reused=False)])}")
    text = "\n".join(table(outcomes, versions, options.seconds)) + "\n"
    if not options.only:
        fill(PAGE, "bench.reload", text)
    return 0


def reload_often(server: Server, seconds: float) -> Crowd:
    """Send HUP every two seconds to a server whose clients are mostly idle."""
    with running(server, pinned=False) as (pid, port), Crowd(("127.0.0.1", port), steady(CLIENTS)) as crowd:
        end = time.monotonic() + seconds
        while time.monotonic() + RELOAD_EVERY_S <= end:
            time.sleep(RELOAD_EVERY_S)
            os.kill(pid, signal.SIGHUP)
        time.sleep(max(0.0, end - time.monotonic()))
    return crowd


def reload_slow_import(server: Server) -> Crowd:
    """Send one HUP while the application takes long to import."""
    scripts = steady(CLIENTS, (0.05, 0.2))
    environ = {"BENCH_IMPORT_S": str(IMPORT_S)}
    with running(server, pinned=False, environ=environ) as (pid, port):
        with Crowd(("127.0.0.1", port), scripts) as crowd:
            time.sleep(1)
            os.kill(pid, signal.SIGHUP)
            time.sleep(STALL_RUN_S - 1)
        return crowd


def stop(server: Server) -> tuple[Crowd, float]:
    """Send TERM while requests wait for workers; return the crowd and how long the stop took."""
    kept = [itertools.repeat(Step(0.0, WORK_PATH)) for _ in range(KEPT)]
    fresh = [itertools.repeat(Step(0.0, WORK_PATH, close=True)) for _ in range(FRESH)]
    with running(server, pinned=False) as (pid, port):
        with Crowd(("127.0.0.1", port), [*kept, *fresh]) as crowd:
            time.sleep(1.5)
            began = time.monotonic()
            os.kill(pid, signal.SIGTERM)
            while not has_ended(pid) and time.monotonic() - began < STOP_BOUND_S:
                time.sleep(0.02)
            took_s = time.monotonic() - began
        return crowd, took_s


def has_ended(pid: int) -> bool:
    """Tell whether a child has ended, and leave its status to who started it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def kinds(failures: list[Failure]) -> str:
    counted = Counter(failure.kind for failure in failures)
    return ", ".join(f"{number} {kind}" for kind, number in counted.most_common()) or "nothing failed"


def table(outcomes: dict[Server, Outcome], versions: dict[str, str], seconds: float) -> Iterator[str]:
    """Yield what goes into the page."""
    stops = max(len(outcome.stops) for outcome in outcomes.values())
    reloads = int(seconds // RELOAD_EVERY_S)
    yield f"Machine: {machine()}, shared by server and clients. {WORKERS} workers."
    yield ""
    yield (
        f"| server | failed on {reloads} reloads | connections closed meanwhile"
        f" | longest stall, import of {IMPORT_S:g} s | requests cut off on {stops} stops | new connections lost"
        " | a stop takes, s |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for server, outcome in outcomes.items():
        yield row(server, versions[server.package], outcome)


def row(server: Server, version: str, outcome: Outcome) -> str:
    """Return a line of the table."""
    name = f"**{server.name}**" if server.name == "prefork" else server.name
    reloads, slow = outcome.reloads, outcome.slow_import
    stall = f"{slow.longest_stall_s:.2f} s" + (f", {len(slow.failures)} failed" if slow.failures else "")
    return (
        f"| {name} {version} | {len(reloads.failures)} of {reloads.requests} | {reloads.closed} | {stall}"
        f" | {len(outcome.of_stops(reused=True))} | {len(outcome.of_stops(reused=False))}"
        f" | {median(outcome.stop_s):.1f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
