"""``python -m bench``: install, measure in alternating runs, report."""

from __future__ import annotations

import argparse
import os
import sys

from bench.measure import cores, measure, running
from bench.report import Runs, write
from bench.scenarios import SCENARIOS, Scenario
from bench.servers import FLOOR, HOME, SERVERS, Server, compile_c, install


def main() -> int:
    """Return 1 if prefork itself could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare servers.")
    parser.add_argument("--rounds", type=int, default=3, help="alternating runs of each (default 3)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a run (default 1)")
    parser.add_argument("--only", nargs="+", metavar="SERVER", help="these alone, and do not write the page")
    options = parser.parse_args()

    HOME.mkdir(parents=True, exist_ok=True)
    servers = [server for server in SERVERS if not options.only or server.name in options.only]
    versions = install(servers)
    runs = Runs(options.seconds, versions, compile_c("load"), os.getloadavg()[0])
    if len(set(cores())) == 1:
        print("only one core: server and load share it, and the figures mean little")
    for number in range(1, options.rounds + 1):
        for server in servers:
            for access_log in (False, True):
                print(f"round {number} of {options.rounds}: {server.name}{', access log on' * access_log}")
                run(runs, server, access_log=access_log)
    if not options.only:
        write(runs)
    return 0 if any(server.name == "prefork" for server, _ in runs.results) or options.only else 1


def run(runs: Runs, server: Server, *, access_log: bool) -> None:
    """Start a server and run all scenarios against it; note what it cannot do."""
    able = []
    for scenario in SCENARIOS:
        if scenario.access_log == access_log:
            reason = inability(runs, server, scenario)
            if reason:
                runs.left_out[server, scenario] = reason
            else:
                able.append(scenario)
    if not able:
        return
    try:
        with running(server, access_log=access_log) as (pid, port):
            for scenario in able:
                try:
                    result = measure(pid, port, scenario, runs.load, runs.seconds)
                except (RuntimeError, OSError) as error:
                    runs.left_out[server, scenario] = str(error)
                    continue
                runs.results.setdefault((server, scenario), []).append(result)
                print(
                    f"  {scenario.title:36} {result.cpu_us:8.1f} µs {result.requests_per_s:9,.0f}/s"
                    f" {result.p99_ms:7.2f} ms",
                    flush=True,
                )
    except (RuntimeError, OSError) as error:
        print(f"  {error}")
        for scenario in able:
            runs.left_out[server, scenario] = "did not serve"


def inability(runs: Runs, server: Server, scenario: Scenario) -> str:
    """Return why the server cannot be asked, or failed before; an empty string if neither."""
    if server.package not in runs.versions:
        return "cannot be installed here"
    if scenario.access_log and server.log is None:
        return "has no access log"
    if server.name == FLOOR and not scenario.bare:
        return "its answer is fixed"
    return runs.left_out.get((server, scenario), "")


if __name__ == "__main__":
    sys.exit(main())
