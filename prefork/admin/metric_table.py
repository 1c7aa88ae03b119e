"""Every metric of prefork in one table: its name, type, labels and meaning.

``docs/metrics.md`` is made from it, the collector may add nothing that is not in it, and the dashboard and the alerts
in ``deploy/`` are checked against it. No label has a value that comes from a client. Used in the admin process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """A metric; of a histogram the name without ``_bucket``, ``_sum`` and ``_count``."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def base(self) -> str:
        """The name of the family in OpenMetrics, to which the samples' names add a suffix."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.type, "")
        return self.name.removesuffix(suffix)

    @property
    def unit(self) -> str:
        """The unit that the name ends with, "" if it has none."""
        return next((unit for unit in ("seconds", "bytes") if self.base.endswith(f"_{unit}")), "")


_POOL = ("pool",)
_SLOT = ("pool", "slot")

TABLE = (
    # The server
    Family("prefork_build_info", "info", ("version", "python"), "The versions of prefork and of Python."),
    Family(
        "prefork_config_info",
        "info",
        ("name", "hash"),
        "The server's name, and a hash of its config that is the same exactly when the config is.",
    ),
    Family(
        "prefork_start_time_seconds",
        "gauge",
        (),
        "When the server was started, as Unix time. An upgrade goes on.",
    ),
    Family(
        "prefork_state",
        "gauge",
        ("state",),
        "1 for the state the server is in: booting, serving, reloading, draining or stopping; else 0.",
    ),
    Family(
        "prefork_ready",
        "gauge",
        (),
        "1 while every pool serves, as /readyz says; 0 if one does not, or in a stop.",
    ),
    Family("prefork_healthy", "gauge", (), "1 while some pool can start workers, as /healthz says; else 0."),
    Family(
        "prefork_generation", "gauge", (), "The generation that serves; each reload that succeeds raises it."
    ),
    Family("prefork_reloads_total", "counter", ("result",), "Reloads by result: ok, failed."),
    Family(
        "prefork_config_last_reload_successful",
        "gauge",
        (),
        "1 if the last reload succeeded, or if there was none; 0 if it failed and the config before is in force.",
    ),
    Family(
        "prefork_config_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "When the config in force was applied, as Unix time: the last reload that succeeded, else the start.",
    ),
    Family(
        "prefork_config_last_reload_duration_seconds",
        "gauge",
        (),
        "How long the last reload took, whatever its result.",
    ),
    # Requests
    Family(
        "prefork_requests_total",
        "counter",
        ("pool", "method", "code"),
        "Requests that the application was called for, by method and class of the status: 2xx, 3xx, 4xx, 5xx.",
    ),
    Family(
        "prefork_requests_in_flight",
        "gauge",
        _POOL,
        "Requests for which the application runs at this moment.",
    ),
    Family(
        "prefork_request_duration_seconds",
        "histogram",
        _POOL,
        "Time in the application: from its call to the end of what it returned.",
    ),
    Family(
        "prefork_exchange_duration_seconds",
        "histogram",
        _POOL,
        "Time that a client sees: from the first byte of a request to the last byte of its response.",
    ),
    Family(
        "prefork_request_bytes_total", "counter", _POOL, "Bytes of the requests of clients, heads included."
    ),
    Family(
        "prefork_response_bytes_total",
        "counter",
        _POOL,
        "Bytes of the bodies of responses, as the application gave them.",
    ),
    Family(
        "prefork_slow_requests_total", "counter", _POOL, "Requests that ran for longer than timeouts.slow."
    ),
    Family(
        "prefork_request_deadlines_total",
        "counter",
        _POOL,
        "Requests that ran for longer than timeouts.request.",
    ),
    Family(
        "prefork_refused_total",
        "counter",
        ("pool", "reason"),
        "Clients that were not served, or no further, by reason.",
    ),
    # Connections
    Family(
        "prefork_connections",
        "gauge",
        ("pool", "state"),
        "Open connections: idle between requests, reading one, running it, or writing what is left of a response.",
    ),
    Family("prefork_connections_accepted_total", "counter", _POOL, "Connections that were accepted."),
    Family(
        "prefork_connections_handed_over_total",
        "counter",
        _POOL,
        "Open connections that a worker handed to another of its pool.",
    ),
    Family(
        "prefork_connections_adopted_total",
        "counter",
        _POOL,
        "Open connections that a worker took from another of its pool.",
    ),
    Family(
        "prefork_listen_queue",
        "gauge",
        ("pool", "address"),
        "Connections that wait in a listener to be accepted.",
    ),
    Family(
        "prefork_listen_queue_limit",
        "gauge",
        ("pool", "address"),
        "How many connections can wait in a listener; the kernel drops more.",
    ),
    # Workers
    Family("prefork_workers", "gauge", ("pool", "state"), "Workers by state: booting, idle, busy, draining."),
    Family("prefork_workers_wanted", "gauge", _POOL, "How many workers there should be."),
    Family("prefork_workers_min", "gauge", _POOL, "The fewest workers of a pool that scales with its load."),
    Family("prefork_workers_max", "gauge", _POOL, "The most workers of a pool that scales with its load."),
    Family("prefork_worker_threads", "gauge", _POOL, "Requests that one worker runs at a time."),
    Family(
        "prefork_pool_generations",
        "gauge",
        _POOL,
        "Generations that have processes: 1, and more during a reload and while old workers drain.",
    ),
    Family("prefork_worker_spawns_total", "counter", _POOL, "Workers that were started."),
    Family("prefork_worker_deaths_total", "counter", ("pool", "reason"), "Workers that are gone, by reason."),
    Family(
        "prefork_worker_cpu_seconds_total",
        "counter",
        _SLOT,
        "CPU time of the workers of a slot, user and system, one after the other.",
    ),
    Family("prefork_worker_uss_bytes", "gauge", _SLOT, "Memory that a worker shares with nobody (USS)."),
    Family(
        "prefork_worker_pss_bytes",
        "gauge",
        _SLOT,
        "That, and a worker's share of what it shares with others (PSS).",
    ),
    Family(
        "prefork_worker_rss_bytes", "gauge", _SLOT, "Memory that a worker has mapped, shared or not (RSS)."
    ),
    # The application's own
    Family(
        "prefork_application_metrics_skipped",
        "gauge",
        _POOL,
        "Files or families of the application's own metrics that could not be shown at this scrape.",
    ),
)

BY_NAME = {family.name: family for family in TABLE}

WORKER_STATES = ("booting", "idle", "busy", "draining")
CONNECTION_STATES = ("idle", "reading", "running", "writing")
SERVER_STATES = ("booting", "serving", "reloading", "draining", "stopping")
CODES = ("2xx", "3xx", "4xx", "5xx")
"""Classes that each method has from the start; an application that answers 1xx is told of when there is one."""
DEATHS = (
    "asked",
    "boot-failed",
    "boot-timeout",
    "died",
    "drain-timeout",
    "not-started",
    "oom-killed",
    "quick-stop",
    "recycled-command",
    "recycled-lifetime",
    "recycled-memory",
    "recycled-pressure",
    "recycled-requests",
    "request-deadline",
    "retired",
    "rolled-back",
    "scaled",
    "spawn-failed",
    "stop",
)
"""Reasons that count from 0, so that also the first death is a rise."""


def as_markdown() -> Iterator[str]:
    """Yield the table for the documentation."""
    yield "| metric | type | labels | |"
    yield "|---|---|---|---|"
    for family in TABLE:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{family.name}` | {family.type} | {labels} | {family.meaning} |"
