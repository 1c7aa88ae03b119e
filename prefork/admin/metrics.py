"""``/metrics``: the status document as metrics, and behind them those of the application.

Runs only in the admin process, the only one that imports prometheus-client for itself. OpenMetrics, or the classic text
format for who asks for that alone.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest as generate_classic
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from prefork.admin.answer import Answer, Environ, Source
from prefork.admin.application_metrics import ApplicationMetrics
from prefork.admin.families import Families
from prefork.admin.metric_table import CODES, CONNECTION_STATES, DEATHS, SERVER_STATES, WORKER_STATES
from prefork.figures import METHODS, REFUSALS

Status = Mapping[str, Any]

CONTENT_TYPE_CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
CONTENT_TYPE_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Metrics:
    """The endpoint."""

    def __init__(self) -> None:
        self._start = StartTime()
        self._lock = threading.Lock()

    def __call__(self, source: Source, environ: Environ) -> Answer:
        """Answer a scrape."""
        with self._lock:  # what is remembered belongs to one scrape at a time
            status = source.status()
            found, skipped = ApplicationMetrics(source.metrics_folder).collect(status["pools"])
            ours = families(status, skipped, self._start)
        body, content_type = exposition([*ours, *found], environ.get("HTTP_ACCEPT", ""))
        return Answer(body, content_type)


def exposition(metrics: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """Return text and content type. ``accept`` is what the client takes, as its field says."""
    registry = CollectorRegistry()
    registry.register(_Collected(metrics))
    if "text/" in accept and "openmetrics" not in accept:  # a browser, or an older scraper
        return generate_classic(registry), CONTENT_TYPE_CLASSIC
    return generate_openmetrics(registry), CONTENT_TYPE_OPENMETRICS


class _Collected(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class StartTime:
    """When the server was started, as Unix time: the same at each scrape."""

    def __init__(self) -> None:
        self._known: float | None = None

    def of(self, status: Status) -> float | None:
        """Return it; computed anew only when the clock was set."""
        if status["uptime_s"] is None:
            return None
        now = time.time() - status["uptime_s"]
        if self._known is None or abs(now - self._known) > 1.0:
            self._known = round(now, 3)
        return self._known


def families(status: Status, skipped: Mapping[str, int], start: StartTime) -> Iterable[Metric]:
    """Return the metrics of a status document."""
    found = Families()
    _add_server(found, status, start.of(status))
    for name, pool in status["pools"].items():
        _add_requests(found, name, pool)
        _add_connections(found, name, pool)
        _add_workers(found, name, pool)
        found.add("prefork_application_metrics_skipped", skipped.get(name), name)
    return found


def _add_server(found: Families, status: Status, started_at: float | None) -> None:
    found.add("prefork_build_info", 1, status["version"], platform.python_version())
    found.add("prefork_config_info", 1, status["name"], status["config_hash"])
    found.add("prefork_start_time_seconds", started_at)
    for state in SERVER_STATES:
        found.add("prefork_state", int(status["state"] == state), state)
    found.add("prefork_ready", int(status["ready"]))
    found.add("prefork_healthy", int(status["healthy"]))
    found.add("prefork_generation", status["generation"])
    for result in ("ok", "failed"):
        found.add("prefork_reloads_total", status["reloads_total"].get(result, 0), result)
    last = status["last_reload"]
    found.add("prefork_config_last_reload_successful", int(last is None or last["result"] == "ok"))
    found.add("prefork_config_last_reload_success_timestamp_seconds", _applied_at(status, started_at))
    found.add("prefork_config_last_reload_duration_seconds", last and last["took_s"])


def _applied_at(status: Status, started_at: float | None) -> float | None:
    for reload in status["reloads"]:
        if reload["result"] == "ok":
            return datetime.fromisoformat(reload["ended_at"]).timestamp()
    return None if status["reloads_total"].get("ok") else started_at


def _add_requests(found: Families, name: str, pool: Status) -> None:
    for method in METHODS:
        counts = pool["by_method"].get(method, {})
        for code in CODES:
            found.add("prefork_requests_total", counts.get(code, 0), name, method, code)
        for code in counts.keys() - set(CODES):
            found.add("prefork_requests_total", counts[code], name, method, code)
    found.add("prefork_requests_in_flight", sum(len(worker["running"]) for worker in pool["workers"]), name)
    if (latency := pool["latency"]) is not None:
        for metric, key in (("request", "application"), ("exchange", "exchange")):
            counts, total = latency[key], latency[f"{key}_sum_s"]
            found.add_histogram(
                f"prefork_{metric}_duration_seconds", latency["bounds_s"], counts, total, name
            )
    found.add("prefork_request_bytes_total", pool["received_bytes"], name)
    found.add("prefork_response_bytes_total", pool["sent_bytes"], name)
    found.add("prefork_slow_requests_total", pool["slow"], name)
    found.add("prefork_request_deadlines_total", pool["deadlines"], name)
    for reason, count in (dict.fromkeys(REFUSALS, 0) | pool["refused"]).items():
        found.add("prefork_refused_total", count, name, reason)


def _add_connections(found: Families, name: str, pool: Status) -> None:
    for state in CONNECTION_STATES:
        found.add("prefork_connections", pool["connections"].get(state), name, state)
    found.add("prefork_connections_accepted_total", pool["accepted"], name)
    found.add("prefork_connections_handed_over_total", pool["handed_over"], name)
    found.add("prefork_connections_adopted_total", pool["adopted"], name)
    queues = {listener["address"]: listener for listener in pool["listeners"]}
    for address, listener in queues.items():
        found.add("prefork_listen_queue", listener["queue"], name, address)
        found.add("prefork_listen_queue_limit", listener["backlog"], name, address)


def _add_workers(found: Families, name: str, pool: Status) -> None:
    workers = pool["workers"]
    for state in WORKER_STATES:
        found.add("prefork_workers", sum(worker["state"] == state for worker in workers), name, state)
    found.add("prefork_workers_wanted", pool["workers_wanted"], name)
    if pool["bounds"] is not None:
        found.add("prefork_workers_min", pool["bounds"]["min"], name)
        found.add("prefork_workers_max", pool["bounds"]["max"], name)
    found.add("prefork_worker_threads", pool["threads"], name)
    found.add("prefork_pool_generations", len(pool["generations"]), name)
    found.add("prefork_worker_spawns_total", pool["spawned"], name)
    deaths = dict.fromkeys(DEATHS, 0) | pool["deaths"]
    for reason, count in deaths.items():
        found.add("prefork_worker_deaths_total", count, name, reason)
    for slot, figures in pool["slots"].items():
        found.add("prefork_worker_cpu_seconds_total", figures["cpu_s"], name, slot)
    for kind in ("uss", "pss", "rss"):
        of_slots: dict[str, int] = {}
        for worker in workers:  # in a reload a slot may have two
            if (used := worker[f"{kind}_bytes"]) is not None:
                of_slots[worker["slot"]] = of_slots.get(worker["slot"], 0) + used
        for slot, used in of_slots.items():
            found.add(f"prefork_worker_{kind}_bytes", used, name, slot)
