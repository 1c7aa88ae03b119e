"""``prefork run``: put master, mold and worker together, and serve until stopped."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from prefork import mold
from prefork.admin import process as admin
from prefork.cli.arguments import Invocation
from prefork.config import Config, Pool
from prefork.contexts import Contexts
from prefork.heritage import Heritage
from prefork.log import Logs
from prefork.master.metrics_folder import MetricsFolder
from prefork.master.nursery import Lives
from prefork.master.state import Belongings
from prefork.master.supervisor import Supervisor
from prefork.scoreboard import Scoreboard
from prefork.worker import boot


def run(invocation: Invocation) -> int:
    """Serve in the foreground; return the exit status. Raise PreforkError when it cannot start."""
    config = invocation.load().config
    import_for_tls(config)
    logs = Logs(config.log, config.statsd)
    belongings = Belongings.take()
    belongings = replace(belongings, metrics=MetricsFolder.make(config, logs.log))
    with belongings.put_away():
        return Supervisor(config, belongings, invocation.load, LIVES, logs).run()


def import_for_tls(config: Config) -> None:
    """Load what workers need for TLS, if there is any: later another version of it may be installed."""
    if any(pool.tls or any(listen.tls for listen in pool.listen) for pool in config.pools) or (
        config.admin and any(listen.tls for listen in config.admin.listen)
    ):
        import_module("prefork.worker.tls_connection")


def mold_main(
    heritage: Heritage, pool: Pool, logs: Logs, scoreboard: Scoreboard, tls: Contexts, preload: bool
) -> int:
    """Live as a mold."""
    return mold.main(heritage, pool, logs, scoreboard, tls, preload, boot.main)


LIVES = Lives(mold_main, admin.main)
