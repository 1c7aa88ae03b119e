"""From the parts of a master to its record, and back, in the next version.

Runs in the master. Only while it is idle: what a reload, a stop or closing listeners need beyond that is in no record.
"""

from __future__ import annotations

from time import monotonic

from prefork.log import Logs
from prefork.master.admin_keeper import AdminKeeper
from prefork.master.admin_terms import Terms
from prefork.master.chronicle import Chronicle
from prefork.master.control_place import PlaceRecord
from prefork.master.estate import Estate, ServerState
from prefork.master.listeners import Listener
from prefork.master.nursery import Nursery
from prefork.master.pool_terms import Watcher
from prefork.master.reloads import Reloads
from prefork.master.state import Belongings, MasterRecord
from prefork.records import Descriptor


def record_of(
    estate: Estate,
    reloads: Reloads,
    belongings: Belongings,
    logs: Logs,
    chronicle: Chronicle,
    control: PlaceRecord | None,
    admin: AdminKeeper,
) -> MasterRecord:
    """Return all that the next version of the master must know."""
    return MasterRecord(
        belongings,
        estate.config,
        reloads.started_with,
        estate.generation,
        reloads.last_generation,
        {key: Descriptor(fd) for key, fd in logs.files.items()},
        tuple(listener.record() for listener in estate.listeners),
        tuple(pool.record() for pool in estate.pools.values()),
        tuple(pool.record() for pool in estate.leaving),
        monotonic(),
        chronicle,
        control=control,
        admin=admin.record(),
    )


def take_over(
    record: MasterRecord,
    estate: Estate,
    reloads: Reloads,
    nursery: Nursery,
    watcher: Watcher,
    admin: AdminKeeper,
) -> None:
    """Fill the parts of a new master; nothing is changed that other processes see."""
    estate.config, estate.generation, estate.state = record.config, record.generation, ServerState.SERVING
    estate.listeners = [Listener.adopt(listener) for listener in record.listeners]
    by_fd = {listener.fileno(): listener for listener in estate.listeners}
    pools = [nursery.adopt_pool(pool, by_fd, watcher) for pool in record.pools]
    estate.pools = {pool.name: pool for pool in pools}
    estate.leaving = [nursery.adopt_pool(pool, by_fd, watcher) for pool in record.leaving]
    admin.adopt(Terms.of(record.config), record.admin)
    reloads.last_generation = record.last_generation
