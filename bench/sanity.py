"""What the status and the metrics of a server can never say, whatever happens to it.

A counter that falls, more busy than there are workers, a sum that is not that of its parts. Each ``Watch`` belongs to
one reader, for what one has seen must not be followed by something older.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families

STATES = ("booting", "idle", "busy", "draining")
COUNTERS = (
    "requests", "errors", "accepted", "handed_over", "adopted", "slow", "deadlines", "received_bytes", "sent_bytes",
    "by_method", "refused", "spawned", "deaths",
)  # fmt: skip
HISTOGRAMS = ("application", "exchange")


class Watch:
    """Looks at one answer after the other; ``wrong`` says what cannot be."""

    def __init__(self, longest_request_s: float) -> None:
        self.wrong: list[str] = []
        self.looks = 0
        self._longest_request_s = longest_request_s
        self._before: dict[str, float] = {}

    def see_status(self, status: Mapping[str, Any]) -> None:
        """Look at a status document."""
        counters = dict(_flat("reloads", status["reloads_total"]))
        counters["uptime_s"], counters["generation"] = status["uptime_s"], status["generation"]
        for name, pool in status["pools"].items():
            counters |= _counters(name, pool)
            self._see_pool(name, pool)
        self._see_counters(counters)
        self._expect(len(status["deaths"]) <= 50 and len(status["reloads"]) <= 20, "too much history")
        for what, key in (("deaths", "at"), ("reloads", "ended_at")):
            times = [each[key] for each in status[what]]
            self._expect(times == sorted(times, reverse=True), f"{what} are not newest first: {times}")
        self._expect(status["last_reload"] == next(iter(status["reloads"]), None), "another last reload")
        self.looks += 1

    def see_metrics(self, text: str) -> None:
        """Look at an exposition in the OpenMetrics format."""
        counters: dict[str, float] = {}
        gauges: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                series, into = f"{sample.name}{{{labels}}}", counters
                if family.type == "gauge":
                    into = gauges
                self._expect(series not in counters and series not in gauges, f"{series} is there twice")
                into[series] = sample.value
                self._expect(sample.value >= 0, f"{series} is {sample.value}")
        self._see_counters(counters)
        states = [value for series, value in gauges.items() if series.startswith("prefork_state{")]
        self._expect(sum(states) == 1, f"the states of the server are {states}")
        for series, threads in gauges.items():
            if series.startswith("prefork_worker_threads{"):
                pool = series.partition("{")[2]
                workers = sum(
                    gauges[f"prefork_workers{{{pool[:-1]},state={state}}}"]
                    for state in STATES
                    if state != "booting"
                )
                runs = gauges[f"prefork_requests_in_flight{{{pool}"]
                self._expect(runs <= threads * workers, f"{runs} requests run in {workers} workers")
        self.looks += 1

    def _see_pool(self, name: str, pool: Mapping[str, Any]) -> None:
        workers: Sequence[Mapping[str, Any]] = pool["workers"]
        classes = list(pool["by_method"].values())
        for key, parts in (
            ("requests", sum(sum(row.values()) for row in classes)),
            ("errors", sum(row.get("5xx", 0) for row in classes)),
        ):
            self._expect(pool[key] == parts, f"{pool[key]} {key}, but in parts {parts}")
        timed = sum(pool["latency"]["application"])
        # Its worker may be, or have been killed, between the two stores.
        most_apart = len(workers) * pool["threads"] + sum(pool["deaths"].values())
        self._expect(
            abs(pool["requests"] - timed) <= most_apart, f"{pool['requests']} requests, but {timed} took time"
        )
        alive = pool["spawned"] - sum(pool["deaths"].values())
        self._expect(alive == len(workers), f"{len(workers)} workers of {name}, but {alive} are not dead")
        pids = [worker["pid"] for worker in workers if worker["pid"]]
        self._expect(len(pids) == len(set(pids)), f"a pid is there twice: {pids}")
        self._expect(min(pool["connections"].values()) >= 0, f"connections: {pool['connections']}")
        for listener in pool["listeners"]:
            depth = listener["queue"]
            self._expect(depth is None or 0 <= depth <= listener["backlog"] + 1, f"a queue: {listener}")
        for worker in workers:
            self._see_worker(worker, pool["threads"])

    def _see_worker(self, worker: Mapping[str, Any], threads: int) -> None:
        running = worker["running"]
        expect = self._expect
        expect(worker["state"] != "booting" or not running, f"it boots and runs {running}")
        expect(worker["state"] in STATES, f"state {worker['state']}")
        expect(len(running) <= threads, f"{len(running)} requests in a worker: {running}")
        expect(worker["current"] == (running[0] if running else None), "the current one is not the oldest")
        if worker["state"] in ("idle", "busy"):
            expect((worker["state"] == "busy") == bool(running), f"{worker['state']} with {running}")
        for request in running:
            longest_s = min(self._longest_request_s, worker["uptime_s"] + 0.01)
            expect(0 <= request["elapsed_s"] <= longest_s, f"{request} of {worker}")
        sizes = [worker[f"{kind}_bytes"] for kind in ("uss", "pss", "rss")]
        if None not in sizes:
            expect(sizes[0] > 0 and sizes == sorted(sizes), f"USS, PSS, RSS: {sizes}")

    def _see_counters(self, counters: Mapping[str, float]) -> None:
        for name, value in counters.items():
            before = self._before.get(name, 0)
            self._expect(value >= before, f"{name} fell from {before} to {value}")
        self._before |= counters

    def _expect(self, is_so: bool, otherwise: str) -> None:
        if not is_so and len(self.wrong) < 100:
            self.wrong.append(otherwise)


def _counters(name: str, pool: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key in COUNTERS:
        found |= _flat(f"{name} {key}", pool[key])
    for kind in HISTOGRAMS:
        found |= _flat(f"{name} {kind}", dict(enumerate(pool["latency"][kind])))
        found[f"{name} {kind} sum"] = pool["latency"][f"{kind}_sum_s"]
    for worker in pool["workers"]:
        for key in ("requests", "errors", "handed_over", "cpu_s", "uptime_s"):
            if worker["pid"] and worker[key] is not None:
                found[f"{name} {worker['slot']} pid {worker['pid']} {key}"] = worker[key]
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield names and numbers of whatever is in a tree."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(f"{name} {key}", each)
    else:
        yield name, value
