"""How many workers ``workers: auto`` means here, with the arithmetic for the log. Runs in the master."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from prefork.config import Pool, WorkerRange
from prefork.errors import ConfigError
from prefork.master.cgroup import Limit, cpu_quota, memory_limit

MIB = 1024 * 1024

RESERVED_BYTES = 128 * MIB
"""For master, mold, and the second mold of a reload."""

WORKER_BYTES = 64 * MIB
"""What a preloaded worker of a mid-sized application adds; four of a Django-sized one took 262 MiB in all."""

LEAST_WORKERS = 2
"""So that one stuck request does not stop the service."""

MOST_WITHOUT_QUOTA = 8
"""In a container without a quota the CPUs are the host's, and shared with who knows whom."""


class WorkerCount(NamedTuple):
    """A number of workers and how it came about, in one line."""

    n: int
    explanation: str


def worker_count(
    pool: Pool,
    environ: Mapping[str, str] | None = None,
    root: str | Path = "/",
    cpus: int | None = None,
) -> WorkerCount:
    """Return how many workers the pool starts with.

    ``cpus`` defaults to those that the affinity of this process allows. Raises ``ConfigError`` when
    ``WEB_CONCURRENCY`` is not a number of workers.
    """
    environ = os.environ if environ is None else environ
    if isinstance(pool.workers, WorkerRange):
        span, first = pool.workers, pool.workers.first
        return WorkerCount(first, f"workers: {span.min} to {span.max}, {first} at first")
    if pool.workers != "auto":
        return WorkerCount(pool.workers, f"workers: {pool.workers}")
    if wanted := environ.get("WEB_CONCURRENCY"):
        if not (wanted.isascii() and wanted.isdigit() and int(wanted) >= 1):
            raise ConfigError(f"WEB_CONCURRENCY: expected an integer >= 1, got {wanted!r}")
        return WorkerCount(int(wanted), f"workers: auto = {int(wanted)} (WEB_CONCURRENCY)")

    quota = cpu_quota(root)
    by_cpu, sum_shown = _by_cpu(len(os.sched_getaffinity(0)) if cpus is None else cpus, quota, pool.threads)
    n, steps = by_cpu, [f"{sum_shown} = {by_cpu}"]
    memory = memory_limit(root)
    if memory and (fit := max(0, int(memory.value) - RESERVED_BYTES) // WORKER_BYTES) < n:
        n = fit
        steps.append(
            f"at most {fit} by memory ({memory.shown} = {int(memory.value) // MIB} MiB, "
            f"less {RESERVED_BYTES // MIB}, {WORKER_BYTES // MIB} for each)"
        )
    if quota is None and n > MOST_WITHOUT_QUOTA and _in_container(environ, Path(root)):
        n = MOST_WITHOUT_QUOTA
        steps.append(f"at most {n} in a container without a CPU quota")
    if n < LEAST_WORKERS:
        n = LEAST_WORKERS
        steps.append(f"at least {n}")
    return WorkerCount(n, f"workers: auto = {', '.join(steps)}")


def _by_cpu(cpus: int, quota: Limit | None, threads: int) -> tuple[int, str]:
    """Return the workers for the CPUs, rounded up, and the calculation in words."""
    available, source = float(cpus), "affinity"
    if quota and quota.value < cpus:
        available, source = quota.value, quota.shown
    shown = f"{available:g} CPU{'' if available == 1 else 's'} ({source})"
    if threads > 1:
        return math.ceil(available), f"{shown} with {threads} threads each"
    return math.ceil(2 * available), f"2 × {shown}"


def _in_container(environ: Mapping[str, str], root: Path) -> bool:
    marks = (root / ".dockerenv", root / "run/.containerenv")
    return bool(
        "KUBERNETES_SERVICE_HOST" in environ
        or environ.get("container")
        or any(mark.exists() for mark in marks)
    )
