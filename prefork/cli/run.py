"""``prefork run``: put master, mold and worker together, and serve until stopped."""

from __future__ import annotations

from prefork import mold
from prefork.cli.arguments import Invocation
from prefork.config import Pool
from prefork.contexts import Contexts
from prefork.heritage import Heritage
from prefork.log import Logs
from prefork.master.supervisor import Supervisor
from prefork.scoreboard import Scoreboard
from prefork.worker import boot


def run(invocation: Invocation) -> int:
    """Serve in the foreground; return the exit status. Raise PreforkError when it cannot start."""
    loaded = invocation.load()
    return Supervisor(loaded, invocation.load, _mold_main, Logs(loaded.config.log)).run()


def _mold_main(
    heritage: Heritage, pool: Pool, logs: Logs, scoreboard: Scoreboard, tls: Contexts, preload: bool
) -> int:
    return mold.main(heritage, pool, logs, scoreboard, tls, preload, boot.main)
