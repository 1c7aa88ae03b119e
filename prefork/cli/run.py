"""``prefork run``: put master, mold and worker together, and serve until stopped."""

from __future__ import annotations

from prefork import mold
from prefork.cli.arguments import Invocation
from prefork.config import Pool
from prefork.heritage import Heritage
from prefork.log import Logs
from prefork.master.supervisor import Supervisor
from prefork.scoreboard import Scoreboard
from prefork.worker import boot


def run(invocation: Invocation) -> int:
    """Serve in the foreground; return the exit status. Raise PreforkError when it cannot start."""
    loaded = invocation.load()
    slow = [pool.timeouts.slow for pool in loaded.config.pools if pool.timeouts.slow]
    logs = Logs(loaded.config.log, slow_s=min(slow, default=0.0))
    return Supervisor(loaded, invocation.load, _mold_main, logs).run()


def _mold_main(heritage: Heritage, pool: Pool, logs: Logs, scoreboard: Scoreboard, preload: bool) -> int:
    return mold.main(heritage, pool, logs, scoreboard, preload, boot.main)
