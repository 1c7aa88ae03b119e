"""What people may do with a running server, by signals and by commands of the control socket.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from prefork.config import Config, Loaded
from prefork.log import Logs
from prefork.master.admin_keeper import AdminKeeper
from prefork.master.estate import Estate, ServerState
from prefork.master.pool import Pool
from prefork.master.reloads import Reloads
from prefork.master.stop import Stop
from prefork.master.upgrade import Upgrades
from prefork.master.upkeep import Upkeep


class Steering:
    """``pools`` returns all, coming and leaving ones too; ``read_config`` reads the config again and raises
    ``ConfigError``; ``show`` returns the status document.
    """

    def __init__(
        self,
        pools: Callable[[], list[Pool]],
        admin: AdminKeeper,
        estate: Estate,
        reloads: Reloads,
        upgrades: Upgrades,
        stop: Stop,
        upkeep: Upkeep,
        logs: Logs,
        read_config: Callable[[], Loaded],
        show: Callable[[], dict[str, Any]],
    ) -> None:
        self._admin = admin
        self._estate = estate
        self._reloads = reloads
        self._upgrades = upgrades
        self._stop = stop
        self._upkeep = upkeep
        self._logs = logs
        self._log = logs.log
        self.read_config = read_config
        self.status = show
        self.pools = pools
        self.reload = reloads.request

    @property
    def started_with(self) -> Config:
        return self._reloads.started_with

    @property
    def config(self) -> Config:
        return self._estate.config

    @property
    def is_stopping(self) -> bool:
        return self._estate.state is ServerState.STOPPING

    @property
    def upgrade_stage(self) -> str:
        return self._upgrades.stage.value

    def serving_pools(self) -> Sequence[Pool]:
        """Return the pools of the config in force."""
        return list(self._estate.pools.values())

    def stop(self) -> None:
        """Stop gracefully."""
        self._stop.graceful("prefork stop")

    def upgrade(self) -> None:
        """Go on as the version of prefork that is installed now."""
        if self.is_stopping:
            self._log.info("upgrade-ignored", "no upgrade: the server stops")
        else:
            self._upgrades.request()

    def scale_by(self, difference: int) -> None:
        """Want one worker more or fewer in the first pool."""
        if not self.is_stopping:
            pool = next(iter(self._estate.pools.values()))
            self.scale(pool, pool.table.wanted + difference)

    def scale(self, pool: Pool, wanted: int) -> None:
        """Want so many workers of a pool, or what is possible."""
        wanted = pool.ask_for(wanted)
        self._upkeep.wake(monotonic())
        self._log.info("scaled", f"{pool.name}: {wanted} workers wanted", pool=pool.name, workers=wanted)

    def reopen_logs(self) -> tuple[int, list[str]]:
        """Open the log files again, here and in every child; return how many, and what failed."""
        fds, failures = self._logs.reopen()
        if fds:
            for pool in self.pools():
                pool.broadcast("reopen", fds)
                pool.broadcast_to_molds("reopen", fds)
            self._admin.broadcast("reopen", fds)
        for failure in failures:
            self._log.error("log-reopen-failed", failure)
        count = len(fds) - len(failures)
        self._log.info("logs-reopened", f"reopened {count} log files")
        return count, failures
