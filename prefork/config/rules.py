"""Rules that concern more than one key; each names the place of the culprit.

A rule looks only at values that are valid by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter, ge, gt
from typing import Any, Final, Protocol

from prefork.config import units
from prefork.config.address import ALL_INTERFACES, Address, TcpAddress, UnixAddress
from prefork.config.listening import Listen
from prefork.config.nodes import Place, Report, join
from prefork.config.schema import Pool
from prefork.config.staffing import WorkerRange

KUBERNETES: Final = Place("KUBERNETES_SERVICE_HOST")
"""The origin of a `shutdown_delay` that Kubernetes implies; such a default adapts, as all defaults do."""

_RESERVED: Final = "admin"
_IS_RESERVED: Final = f'expected a name other than "{_RESERVED}", which is reserved; choose another'


class Listening(Protocol):
    """What has listeners: a pool, or the admin process."""

    @property
    def listen(self) -> tuple[Listen, ...]: ...


_ORDERED: Final[tuple[tuple[str, str, Callable[[Any, Any], bool], str, Callable[[Any], str]], ...]] = (
    ("timeouts.slow", "timeouts.request", ge, "less than", units.format_duration),
    ("timeouts.shutdown_delay", "timeouts.graceful", ge, "less than", units.format_duration),
    ("limits.request_line", "limits.head", gt, "at most", units.format_size),
)
"""Keys of a pool that have an order unless one is 0: lower, higher, what is wrong, words, printing."""


def check_name(name: str, report: Report) -> None:
    """Check the server's name, which a plain config's pool has too."""
    if name == _RESERVED:
        report.mistake(report.place("name"), "name", _IS_RESERVED)


def check_pool(pool: Pool, path: str, report: Report) -> None:
    """Check one pool, whose keys are at ``path``."""
    if pool.name == _RESERVED:
        report.mistake(report.place(path), path, _IS_RESERVED)
    for lower, higher, is_wrong, words, show in _ORDERED:
        low, high = join(path, lower), join(path, higher)
        if low not in report.origins or report.origins[low] == KUBERNETES or report.blames(low, high):
            continue
        low_value, high_value = attrgetter(lower)(pool), attrgetter(higher)(pool)
        if low_value and high_value and is_wrong(low_value, high_value):
            limit = f"{higher} ({show(high_value)}, {report.origins.get(high, 'the default')})"
            report.mistake(report.place(low), low, f"expected {words} {limit}, got {show(low_value)}")
    _check_workers(pool, join(path, "workers"), report)
    _check_proxy(pool, path, report)
    _check_overrides(pool, join(path, "timeouts.overrides"), report)
    check_listeners(pool, path, report)


def check_listeners(owner: Listening, path: str, report: Report) -> None:
    """Check the listeners of a pool, or of what else has some."""
    for path_of, listen in listeners(owner, path, report):
        if isinstance(listen.parsed, UnixAddress):
            continue
        for name in ("mode", "owner", "group"):
            place = report.origins.get(f"{path_of}.{name}")
            if place and not report.blames(f"{path_of}.{name}"):
                got = f"got one beside {listen.address}"
                report.mistake(place, f"{path_of}.{name}", f"expected {name} for a unix socket only, {got}")


def _check_workers(pool: Pool, path: str, report: Report) -> None:
    workers = pool.workers
    if not isinstance(workers, WorkerRange) or report.blames(
        *(f"{path}.{k}" for k in ("min", "max", "start"))
    ):
        return
    if workers.min > workers.max:
        message = f"expected at least workers.min ({workers.min}), got {workers.max}"
        report.mistake(report.place(f"{path}.max"), f"{path}.max", message)
    elif workers.clamp(workers.first) != workers.first:
        message = f"expected an integer from workers.min ({workers.min}) to workers.max ({workers.max})"
        report.mistake(report.place(f"{path}.start"), f"{path}.start", f"{message}, got {workers.start}")


def _check_proxy(pool: Pool, path: str, report: Report) -> None:
    use, ready = join(path, "proxy.use"), join(path, "health.ready")
    proxy, health = pool.proxy, pool.health
    if not report.blames(use, join(path, "proxy.forwarded")) and proxy.forwarded == "forwarded":
        for part in proxy.use:
            if part in ("port", "prefix"):
                got = f'got "{part}", which Forwarded cannot tell'
                report.mistake(report.place(use), use, f"expected for, proto or host, {got}")
    if not report.blames(ready, join(path, "health.live")) and health.ready and health.ready == health.live:
        message = f'expected another path than health.live, got "{health.ready}"'
        report.mistake(report.place(ready), ready, message)


def _check_overrides(pool: Pool, path: str, report: Report) -> None:
    seen: dict[str, str] = {}
    for n, one in enumerate((pool.timeouts and pool.timeouts.overrides) or ()):
        where = f"{path}[{n}]" if f"{path}[0]" in report.origins else path
        if one is None or report.blames(*(f"{where}.{name}" for name in ("path", "request", "slow"))):
            continue
        if one.path in seen:
            message = f"expected a path of its own, got {one.path}, which {seen[one.path]} has"
            report.mistake(report.place(f"{where}.path"), f"{where}.path", message)
        seen.setdefault(one.path, where)
        if one.slow and one.request and one.slow >= one.request:
            low, high = units.format_duration(one.slow), units.format_duration(one.request)
            message = f"expected less than request ({high}), got {low}"
            report.mistake(report.place(f"{where}.slow"), f"{where}.slow", message)


def check_admin(admin: Listening, path: str, report: Report) -> None:
    """Check the listeners of the admin process, whose keys are at ``path``."""
    check_listeners(admin, path, report)
    for path_of, listen in listeners(admin, path, report):
        if listen.proxy_protocol:
            where = f"{path_of}.proxy_protocol"
            message = "expected false: whom a proxy speaks for does not count here, got true"
            report.mistake(report.place(where), where, message)


def check_addresses(owners: Mapping[str, Listening], report: Report) -> None:
    """Check that no two listeners, of one pool or of two, are on one address; ``owners`` by their paths."""
    seen: list[tuple[Address, str, str]] = []
    for path, owner in owners.items():
        for path_of, listen in listeners(owner, path, report):
            for other, other_text, other_path in seen:
                if _collide(listen.parsed, other):
                    user = f"{other_path} uses {other_text} ({report.place(other_path)})"
                    message = f"expected an address of its own, got {listen.address}, but {user}"
                    report.mistake(report.place(path_of), path_of, message)
                    break
            seen.append((listen.parsed, listen.address, path_of))


def listeners(owner: Listening, path: str, report: Report) -> list[tuple[str, Listen]]:
    """Return the listeners that are valid, each with its path."""
    where = join(path, "listen")
    is_list = f"{where}[0]" in report.origins
    paths = ((f"{where}[{n}]" if is_list else where, one) for n, one in enumerate(owner.listen or ()))
    return [(path_of, one) for path_of, one in paths if one and one.address]


def _collide(one: Address, other: Address) -> bool:
    if isinstance(one, TcpAddress) and isinstance(other, TcpAddress) and one.port == other.port != 0:
        same_family = (":" in one.host) == (":" in other.host)
        return one.host == other.host or (
            same_family and bool({ALL_INTERFACES, "::"} & {one.host, other.host})
        )
    return one == other and not isinstance(one, TcpAddress)
