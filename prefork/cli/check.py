"""``prefork check``: validate, load the application in a child process, print the effective config."""

from __future__ import annotations

import sys

from prefork.cli.arguments import Invocation
from prefork.cli.trial import try_loading
from prefork.config import Pool
from prefork.config.effective import render
from prefork.errors import ExitStatus
from prefork.master.capacity import worker_count


def check(invocation: Invocation) -> int:
    """Print the effective config to stdout and the verdict to stderr; return the exit status.

    Raise ConfigError when the config is not valid.
    """
    loaded = invocation.load()
    print(render(loaded, invocation.show_secrets), end="", flush=True)
    for pool in loaded.config.pools:
        _say(pool, worker_count(pool).explanation)
    statuses = [_try(pool) for pool in loaded.config.pools if invocation.load_app]
    return max(statuses, default=ExitStatus.OK)


def _try(pool: Pool) -> int:
    """Tell how the pool's application loads, and return the status."""
    outcome = try_loading(pool)
    if outcome.error:
        _say(pool, outcome.error)
        return outcome.status
    _say(pool, f"{pool.app} loads, in {outcome.took_s:.1f} s")
    if outcome.leftovers and pool.preload is not False:
        follows = (
            "each worker loads it for itself" if pool.preload == "auto" else "workers do not inherit that"
        )
        _say(pool, f"its import leaves {', '.join(outcome.leftovers)}: {follows}")
    return outcome.status


def _say(pool: Pool, line: str) -> None:
    print(f"prefork: {pool.name}: {line}", file=sys.stderr)
