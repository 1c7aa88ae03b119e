"""``python -m bench``: install, measure in alternating runs, report."""

from __future__ import annotations

import argparse
import sys

from bench.measure import SCENARIOS, Result, Scenario, cores, measure
from bench.report import write
from bench.servers import HOME, SERVERS, Server, build_load, install


def main() -> int:
    """Return 1 if prefork itself could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare servers.")
    parser.add_argument("--rounds", type=int, default=5, help="alternating runs of each (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a run (default 2)")
    parser.add_argument("--only", nargs="+", metavar="SERVER", help="these alone, and do not write the page")
    options = parser.parse_args()

    HOME.mkdir(parents=True, exist_ok=True)
    servers = [server for server in SERVERS if not options.only or server.name in options.only]
    versions = install(servers)
    load = build_load()
    if len(set(cores())) == 1:
        print("only one core: server and load share it, and the figures mean little")

    runs: dict[tuple[Server, Scenario], list[Result]] = {}
    for number in range(1, options.rounds + 1):
        for server in servers:
            for scenario in SCENARIOS:
                if server.package not in versions or (scenario.access_log and server.log is None):
                    continue
                try:
                    result = measure(server, scenario, load, options.seconds)
                except (RuntimeError, OSError) as error:
                    print(f"{number}  {server.name}: {error}", flush=True)
                    continue
                runs.setdefault((server, scenario), []).append(result)
                print(
                    f"{number}  {server.name:17} {scenario.title:40} {result.cpu_us:7.1f} µs"
                    f" {result.requests_per_s:9,.0f}/s {result.p99_ms:7.2f} ms",
                    flush=True,
                )
    if runs and not options.only:
        write(runs, versions, options.seconds)
    return 0 if any(server.name == "prefork" for server, _ in runs) or options.only else 1


if __name__ == "__main__":
    sys.exit(main())
