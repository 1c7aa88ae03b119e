"""``/healthz`` and ``/readyz``: a status for machines, and a line for people.

Runs in the admin process. Both read only what the master has published: they cost nothing, and wait for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefork.admin.answer import UNAVAILABLE, Answer, Environ, Source


def live(source: Source, environ: Environ) -> Answer:
    """Answer 200 while the master lives and some pool can boot workers."""
    if not source.is_master_alive():
        return Answer.of_text("the master is gone", UNAVAILABLE)
    document = source.document()
    if document is not None and not document["healthy"]:
        return Answer.of_text(f"{document['state']}: no pool can boot workers", UNAVAILABLE)
    return Answer.of_text("ok")


def ready(source: Source, environ: Environ) -> Answer:
    """Answer 200 while every pool serves; 503 while the server boots or stops."""
    if not source.is_master_alive():
        return Answer.of_text("the master is gone", UNAVAILABLE)
    document = source.document()
    if document is None:
        return Answer.of_text("booting", UNAVAILABLE)
    if not document["ready"]:
        return Answer.of_text(_why_not(document), UNAVAILABLE)
    return Answer.of_text("ok")


def _why_not(document: Mapping[str, Any]) -> str:
    """Return the state, and which pools have no worker that serves."""
    lacking = [
        name
        for name, pool in document["pools"].items()
        if not any(worker["state"] == "ready" for worker in pool["workers"])
    ]
    state: str = document["state"]
    return f"{state}: no worker of {', '.join(lacking)} serves" if lacking else state
