"""The schema (one declarative table), loading with places, units, and the generated reference."""

from prefork.config.address import Address, FdAddress, SystemdAddress, TcpAddress, UnixAddress
from prefork.config.changes import Change, changes, in_force, needs_restart
from prefork.config.listening import Admin, Listen, Tls
from prefork.config.load import Loaded, load, stated_control
from prefork.config.merge import Override
from prefork.config.metrics import Metrics
from prefork.config.nodes import Place
from prefork.config.schema import Config, Limits, Log, Pool, Reload
from prefork.config.staffing import Recycle, WorkerRange
from prefork.config.timing import Timeouts, TimeoutsOfPath

__all__ = [
    "Address",
    "Admin",
    "Change",
    "Config",
    "FdAddress",
    "Limits",
    "Listen",
    "Loaded",
    "Log",
    "Metrics",
    "Override",
    "Place",
    "Pool",
    "Recycle",
    "Reload",
    "SystemdAddress",
    "TcpAddress",
    "Timeouts",
    "TimeoutsOfPath",
    "Tls",
    "UnixAddress",
    "WorkerRange",
    "changes",
    "in_force",
    "load",
    "needs_restart",
    "stated_control",
]
