"""The hooks of requests, bound once to their worker: the gateway calls them, or has nothing to call.

Runs only in a worker, in whichever thread serves the request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from prefork.hooks import Deadline, Hooks, Reporter, RequestFinished, RequestStarted
from prefork.worker.exchange import Environ

Started = Callable[[Environ], None]
Finished = Callable[[Environ, int, int, int], None]
"""Gets the environ, the status, the bytes of the body that were sent, and the nanoseconds that it took."""

Late = Callable[[Environ, str, int], None]
"""Gets the environ, the stack, and the nanoseconds that the request has been running."""


class RequestHooks(NamedTuple):
    """None: not set."""

    started: Started | None = None
    finished: Finished | None = None
    late: Late | None = None


def request_hooks(
    hooks: Hooks, log: Reporter, pool: str, generation: int, slot: str, pid: int
) -> RequestHooks:
    """Return the hooks of a worker's requests."""

    def started(environ: Environ) -> None:
        hooks.run("request_started", RequestStarted(pool, generation, slot, pid, environ), log)

    def finished(environ: Environ, status: int, sent_bytes: int, elapsed_ns: int) -> None:
        argument = RequestFinished(pool, generation, slot, pid, environ, status, sent_bytes, elapsed_ns / 1e9)
        hooks.run("request_finished", argument, log)

    def late(environ: Environ, stack: str, elapsed_ns: int) -> None:
        argument = Deadline(pool, generation, slot, pid, environ, stack, elapsed_ns / 1e9)
        hooks.run("deadline", argument, log)

    return RequestHooks(
        started if hooks.has("request_started") else None,
        finished if hooks.has("request_finished") else None,
        late if hooks.has("deadline") else None,
    )
