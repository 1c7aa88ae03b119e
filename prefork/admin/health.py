"""``/healthz`` and ``/readyz``: a status for machines, and a line for people.

Runs in the admin process.
"""

from __future__ import annotations

from typing import Any

from prefork.admin.answer import Answer, Environ, Source

UNAVAILABLE = "503 Service Unavailable"


def live(source: Source, environ: Environ) -> Answer:
    """Answer 200 while the master lives and some pool can boot workers."""
    if not source.is_master_alive():
        return Answer.of_text("the master is gone", UNAVAILABLE)
    status = source.status()
    if not status["healthy"]:
        return Answer.of_text(f"{status['state']}: no pool can boot workers", UNAVAILABLE)
    return Answer.of_text("ok")


def ready(source: Source, environ: Environ) -> Answer:
    """Answer 200 while every pool serves; 503 while the server boots or stops."""
    if not source.is_master_alive():
        return Answer.of_text("the master is gone", UNAVAILABLE)
    status = source.status()
    if not status["ready"]:
        return Answer.of_text(_why_not(status), UNAVAILABLE)
    return Answer.of_text("ok")


def _why_not(status: dict[str, Any]) -> str:
    """Return the state, and which pools have no worker that serves."""
    lacking = [
        name
        for name, pool in status["pools"].items()
        if not any(worker["state"] in ("idle", "busy") for worker in pool["workers"])
    ]
    return f"{status['state']}: no worker of {', '.join(lacking)} serves" if lacking else status["state"]
