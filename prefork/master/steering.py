"""What the commands of the control socket may do with the server: the supervisor, as far as they need it.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from prefork.config import Config, Loaded
from prefork.master.estate import Estate, ServerState
from prefork.master.pool import Pool
from prefork.master.reloads import Reloads
from prefork.master.stop import Stop
from prefork.master.upgrade import Upgrades


class Master(Protocol):
    """What this needs of the supervisor."""

    def pools(self) -> list[Pool]:
        """Return all pools, coming and leaving ones too."""

    def upgrade(self) -> None:
        """Go on as the version of prefork that is installed now."""

    def scale(self, pool: Pool, wanted: int) -> None:
        """Want so many workers of a pool."""

    def reopen_logs(self) -> tuple[int, list[str]]:
        """Open the log files again; return how many, and what failed."""


class Steering:
    """``read_config`` reads the config again and raises ``ConfigError``; ``show`` returns the status document."""

    def __init__(
        self,
        master: Master,
        estate: Estate,
        reloads: Reloads,
        upgrades: Upgrades,
        stop: Stop,
        read_config: Callable[[], Loaded],
        show: Callable[[], dict[str, Any]],
    ) -> None:
        self._master = master
        self._estate = estate
        self._reloads = reloads
        self._upgrades = upgrades
        self._stop = stop
        self.read_config = read_config
        self.status = show
        self.pools = master.pools
        self.upgrade = master.upgrade
        self.scale = master.scale
        self.reopen_logs = master.reopen_logs
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
