"""What the master owns besides processes: the config that is in force, listeners, pools.

Runs in the master.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from prefork.config import Admin, Config, Listen
from prefork.config import Pool as PoolConfig
from prefork.master.chronicle import Chronicle
from prefork.master.listeners import Listener, key_of
from prefork.master.pool import Pool


def listens_of(config: Config) -> list[Listen]:
    """Return all entries of a config, those of the admin process, too."""
    pools = [listen for pool in config.pools for listen in pool.listen]
    return pools if config.admin is None else [*config.admin.listen, *pools]


class ServerState(Enum):
    BOOTING = "booting"
    SERVING = "serving"
    RELOADING = "reloading"
    STOPPING = "stopping"


@dataclass(slots=True)
class Estate:
    """What the parts of the master share: the server's state, and what a committed reload changes."""

    config: Config
    generation: int
    state: ServerState = ServerState.BOOTING
    is_hasty: bool = False
    """It stops at once, and not in good order."""
    listeners: list[Listener] = field(default_factory=list)
    closing: list[Listener] = field(default_factory=list)
    """Listeners that are no longer wanted and are about to be closed."""
    pools: dict[str, Pool] = field(default_factory=dict)
    leaving: list[Pool] = field(default_factory=list)
    """Pools that are no longer wanted and whose workers still drain."""

    def forget_gone(self, chronicle: Chronicle) -> None:
        """Give up the leaving pools that are gone; what they have counted goes into the chronicle."""
        for pool in [pool for pool in self.leaving if pool.is_gone]:
            self.leaving = [other for other in self.leaving if other is not pool]
            chronicle.depart(pool.name, pool.totals)

    def listeners_of(self, owner: PoolConfig | Admin) -> list[Listener]:
        """Return the open listeners of a pool, or of the admin process, in the order of its config."""
        return [listener for listen in owner.listen for listener in self.listeners_with(listen)]

    def listeners_of_pools(self) -> list[Listener]:
        """Return all open listeners but the admin's."""
        of_admin = self.listeners_of_admin()
        return [listener for listener in self.listeners if listener not in of_admin]

    def listeners_of_admin(self) -> list[Listener]:
        """Return the open listeners of the admin process that is in force."""
        admin = self.config.admin
        return [] if admin is None else self.listeners_of(admin)

    def listeners_with(self, listen: Listen) -> list[Listener]:
        """Return the open listeners of one address; a host name may have several."""
        key = key_of(listen)
        return [listener for listener in self.listeners if listener.key == key]
