"""What an admin process is started with: another process is needed only when this differs.

Runs in the master.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from prefork import privileges
from prefork.config import Admin, Config, Tls
from prefork.config import Pool as PoolConfig
from prefork.config.admin_pool import admin_pool
from prefork.privileges import Credentials


@dataclass(frozen=True, slots=True)
class Terms:
    """The config of the admin process, and what it becomes."""

    admin: Admin
    pool: PoolConfig
    credentials: Credentials | None

    @classmethod
    def of(cls, config: Config) -> Terms | None:
        """Return the terms of a config, None if it has no admin process. Raises ``ConfigError``."""
        if config.admin is None:
            return None
        return cls(config.admin, admin_pool(config.admin), _credentials(config.admin, config))

    @property
    def are_read_again(self) -> bool:
        """Each reload wants a new process: the files of certificates may have changed."""
        return any(isinstance(listen.tls, Tls) for listen in self.admin.listen)


def _credentials(admin: Admin, config: Config) -> Credentials | None:
    """Return the admin's credentials, with the groups of all pools: it reads what their workers leave for it."""
    own = privileges.resolve(admin.user, admin.group)
    if own is None:
        return None
    of_pools = (privileges.resolve(pool.user, pool.group) for pool in config.pools)
    groups = {each.gid for each in of_pools if each is not None and each.gid != 0}
    return replace(own, groups=tuple(sorted({*own.groups, *groups})))
