"""``python -m bench.mixed``: what fast requests wait for slow ones, in prefork, in others, and in an ideal queue.

Four workers; 2 % of the requests take 200 ms, the rest nothing. Takes about four minutes and writes a table into
docs/reliability.md, and docs/latency.svg.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from random import Random
from statistics import median

from bench.crowd import Crowd, Step
from bench.curves import curves
from bench.ideal import single_queue
from bench.measure import cores, running
from bench.pools import RELOADABLE, SINGLE_PROCESS, WORKERS
from bench.report import fill, machine
from bench.servers import HOME, ROOT, Server, install

PAGE, PLOT = ROOT / "docs" / "reliability.md", ROOT / "docs" / "latency.svg"
FAST, SLOW, SLOW_S, SLOW_SHARE = "/", "/ms/200", 0.2, 0.02
IDEAL = "ideal single queue"
SERVERS = (*RELOADABLE, SINGLE_PROCESS)


@dataclass(frozen=True)
class Load:
    """So many clients, each of which pauses up to so long before a request."""

    title: str
    clients: int
    pause_s: float = 0.0

    def scripts(self, seed: int) -> list[Iterator[Step]]:
        """Return what each client does, always the same for a seed."""

        def script(chooser: Random) -> Iterator[Step]:
            while True:
                pause_s = chooser.uniform(0, self.pause_s)
                yield Step(pause_s, SLOW if chooser.random() < SLOW_SHARE else FAST)

        return [script(Random(f"{seed}/{number}")) for number in range(self.clients)]


LOADS = (
    Load("10 clients without pauses", 10),
    Load("40 clients without pauses", 40),
    Load("10 clients, pauses up to 20 ms", 10, 0.02),
    Load("40 clients, pauses up to 100 ms", 40, 0.1),
)


@dataclass
class Seen:
    """What the clients saw of one server under one load, in all rounds."""

    fast_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    answers: int = 0
    failed: int = 0

    def add(self, latencies_s: Mapping[str, list[float]], seconds: float, failed: int = 0) -> None:
        self.seconds += seconds
        self.fast_s = sorted([*self.fast_s, *latencies_s[FAST]])
        self.answers += sum(len(latencies) for latencies in latencies_s.values())
        self.failed += failed

    def percentile_s(self, share: float) -> float:
        return self.fast_s[min(int(len(self.fast_s) * share), len(self.fast_s) - 1)]


Results = dict[Load, dict[str, Seen]]


def main() -> int:
    """Measure and write the page and the chart, unless only some are asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.mixed", description="Slow requests beside fast ones."
    )
    parser.add_argument("--rounds", type=int, default=2, help="alternating runs of each (default 2)")
    parser.add_argument(
        "--seconds", type=float, default=2.5, help="length of a run (default 2.5; twice with pauses)"
    )
    parser.add_argument("--only", nargs="+", metavar="SERVER", help="these alone, and do not write the page")
    options = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    servers = [server for server in SERVERS if not options.only or server.name in options.only]
    versions = install(servers)
    servers = [server for server in servers if server.package in versions]
    real: Results = {load: defaultdict(Seen) for load in LOADS}
    ideal: Results = {load: defaultdict(Seen) for load in LOADS}
    for seed in range(1, options.rounds + 1):
        for server in servers:
            print(f"round {seed} of {options.rounds}: {server.name}", flush=True)
            measure(server, seed, options.seconds, real, ideal)
    text = (
        "\n".join(page(real, ideal, [f"{server.name} {versions[server.package]}" for server in servers]))
        + "\n"
    )
    print(text)
    if not options.only:
        fill(PAGE, "bench.mixed", text)
        ours = SERVERS[0].name
        PLOT.write_text(
            curves(
                {
                    load.title: {
                        IDEAL: ideal[load][ours].fast_s,
                        **{name: seen.fast_s for name, seen in real[load].items()},
                    }
                    for load in LOADS
                }
            )
        )
    return 0


def measure(server: Server, seed: int, seconds: float, real: Results, ideal: Results) -> None:
    """Put all loads on a server, and on an ideal queue whose workers are as fast as that server."""
    with running(server, pinned=False) as (_, port):
        alone = crowd(port, [repeat(Step(0.0, FAST))], 0.5)
        service_s = {FAST: median(alone.latencies_s[FAST]), SLOW: SLOW_S}
        for load in LOADS:
            long_s = seconds * (2 if load.pause_s else 1)
            seen = crowd(port, load.scripts(seed), long_s)
            real[load][server.name].add(seen.latencies_s, long_s, len(seen.failures))
            simulated = single_queue(load.scripts(seed), WORKERS, service_s.__getitem__, long_s)
            ideal[load][server.name].add(simulated, long_s)


def crowd(port: int, scripts: Sequence[Iterator[Step]], seconds: float) -> Crowd:
    """Let clients follow their scripts for a time; their thread has a core of its own as far as there are any."""
    with Crowd(("127.0.0.1", port), scripts, core=cores()[1]) as clients:
        time.sleep(seconds)
    return clients


def page(real: Results, ideal: Results, titles: Sequence[str]) -> Iterator[str]:
    """Yield what goes into the page."""
    yield f"Machine: {machine()}, shared by server and clients. {WORKERS} workers."
    yield "The ideal queue that is shown has workers as fast as prefork's; the last column compares each p99 with"
    yield "that of one whose workers are as fast as this server's."
    for load in LOADS:
        yield ""
        yield f"**{load.title[0].upper()}{load.title[1:]}**"
        yield ""
        yield "| | p50, ms | p99, ms | p99.9, ms | slowest, ms | answers/s | failed | p99, of the ideal |"
        yield "|---|---:|---:|---:|---:|---:|---:|---:|"
        [first, *_] = ideal[load].values()
        yield row(IDEAL, first, first)
        for title, (name, seen) in zip(titles, real[load].items(), strict=True):
            shown = title.replace("prefork", "**prefork**")
            yield row(shown, seen, ideal[load][name])


def row(title: str, seen: Seen, ideal: Seen) -> str:
    """Return a line of the table."""
    figures = [f"{seen.percentile_s(share) * 1000:.2f}" for share in (0.5, 0.99, 0.999, 1)]
    return (
        f"| {title} | {' | '.join(figures)} | {seen.answers / seen.seconds:,.0f} | {seen.failed}"
        f" | {seen.percentile_s(0.99) / ideal.percentile_s(0.99):.2f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
