"""From the merged tree to the ``Config``: pools and what they inherit, the environment's defaults, digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from prefork.config.address import UnixAddress
from prefork.config.composites import Section, keys, read_keys, unknown_key
from prefork.config.listening import Admin, Listen
from prefork.config.merge import merge_tables
from prefork.config.nodes import Entry, Node, Place, Report, Scalar, Table, describe, is_null, join
from prefork.config.rules import KUBERNETES, check_addresses, check_admin, check_name, check_pool
from prefork.config.schema import NAME, Config, Pool
from prefork.config.tls import check_tls, with_tls

_SERVER_KEYS: Final = [k.name for k in keys(Config)]
_POOL_KEYS: Final = [k.name for k in keys(Pool)]
_ALL_KEYS: Final = [*_SERVER_KEYS, *_POOL_KEYS, "pools"]
_LATER: Final = Config.LATER + Pool.LATER
_UNIX_SOCKET_MODE: Final = 0o660
_KUBERNETES_DELAY_S: Final = 5.0


def assemble(root: Table, files: tuple[str, ...], environ: Mapping[str, str], report: Report) -> Config:
    """Return the config of a merged tree; mistakes go to the report, and then the result is of no use."""
    for name, entry in root.entries.items():
        if name not in _ALL_KEYS:
            unknown_key(entry.place, "", name, _ALL_KEYS, _LATER, report)
    server = Section(Config).read(_only(root, _SERVER_KEYS), "", report)
    shared = _only(root, _POOL_KEYS)
    several = root.entries.get("pools")
    if several is None or is_null(several.node):
        pools = {"": _read_pool(shared, "", "", environ, report)}
    else:
        pools = _read_pools(several.node, shared, environ, report)
    assert server is not None
    name = server.name
    if not name:
        name = _default_name(pools)
        report.origins["name"] = Place("app")
    if "" in pools:
        check_name(name, report)
    admin = server.admin
    if admin is not None:
        check_admin(admin, "admin", report)
        check_tls(admin, "admin", report)
    check_addresses({**pools, "admin": admin} if admin is not None else pools, report)
    if report.mistakes:
        return server
    if admin is not None:
        admin = _resolve_admin(admin, shared, pools, report)
    resolved = (_resolve(pool, path, report) for path, pool in pools.items())
    config = replace(
        server, name=name, admin=admin, pools=tuple(replace(p, name=p.name or name) for p in resolved)
    )
    return replace(config, files=files, digest=_digest(config))


def plain(config: Config) -> dict[str, Any]:
    """Return the config as plain data in its own notation, always with ``pools``."""
    return {
        **Section(Config).show(config),
        "pools": {pool.name: Section(Pool).show(pool) for pool in config.pools},
    }


def _digest(config: Config) -> str:
    """Return a short hash that is the same exactly when the effective config is the same."""
    text = json.dumps(plain(config), sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def _only(table: Table, names: list[str]) -> Table:
    return Table(table.place, {name: entry for name, entry in table.entries.items() if name in names})


def _default_name(pools: Mapping[str, Pool]) -> str:
    """Return the first pool's name, or for a plain config ``shop`` of ``shop.wsgi:app`` or ``x/shop.py``."""
    first = next(iter(pools.values()), None)
    app = first.app if first else None
    if not first or first.name or not app:
        return first.name if first else ""
    module = app.partition(":")[0]
    top = (
        module.rpartition("/")[2].removesuffix(".py") if module.endswith(".py") else module.partition(".")[0]
    )
    return re.sub(r"[^A-Za-z0-9_-]", "-", top)


def _read_pools(node: Node, shared: Table, environ: Mapping[str, str], report: Report) -> dict[str, Pool]:
    """Return the pools by their paths; the other top-level keys are defaults that every pool inherits."""
    read_keys(Pool, shared, "", report)
    for name in ("app", "listen"):
        if name in shared.entries:
            place = shared.entries[name].place
            report.mistake(place, name, "expected inside of a pool, got it at top level together with pools")
    shared = _only(shared, [key for key in _POOL_KEYS if key not in ("app", "listen")])
    if not isinstance(node, Table) or not node.entries:
        got = describe(node) if not isinstance(node, Table) else "none"
        report.mistake(node.place, "pools", f"expected at least one pool, as a mapping of names, got {got}")
        return {}
    pools = {}
    for name, entry in node.entries.items():
        path = f"pools.{name}"
        if not re.fullmatch(NAME.pattern, name):
            report.mistake(entry.place, path, f'expected {NAME.expects}, got "{name}"')
            continue
        if not isinstance(entry.node, Table):
            report.mistake(
                entry.place, path, f"expected a mapping with the key app, got {describe(entry.node)}"
            )
            continue
        for key, inner in entry.node.entries.items():
            if key in _SERVER_KEYS:
                report.mistake(inner.place, f"{path}.{key}", "expected at top level, got it inside of a pool")
        own = Table(entry.place, {k: e for k, e in entry.node.entries.items() if k not in _SERVER_KEYS})
        merged = merge_tables(Table(entry.place, shared.entries), own)
        pools[path] = _read_pool(merged, path, name, environ, report)
    return pools


def _read_pool(table: Table, path: str, name: str, environ: Mapping[str, str], report: Report) -> Pool:
    pool = Section(Pool).read(_with_environment(table, environ), path, report, {"name": name})
    assert pool is not None
    check_pool(pool, path, report)
    check_tls(pool, path, report)
    return pool


def _with_environment(table: Table, environ: Mapping[str, str]) -> Table:
    """Return a pool's keys with the defaults that the environment gives to unset or ``auto`` keys."""
    entries = dict(table.entries)
    if environ.get("PORT") and _is_open(entries, "listen"):
        _set(entries, "listen", f"0.0.0.0:{environ['PORT']}", Place("PORT"))
    timeouts = entries["timeouts"].node if "timeouts" in entries else None
    if environ.get("KUBERNETES_SERVICE_HOST") and (
        timeouts is None or is_null(timeouts) or isinstance(timeouts, Table)
    ):
        inner = dict(timeouts.entries) if isinstance(timeouts, Table) else {}
        if _is_open(inner, "shutdown_delay"):
            _set(inner, "shutdown_delay", str(_KUBERNETES_DELAY_S), KUBERNETES)
        place = timeouts.place if timeouts else table.place
        entries["timeouts"] = Entry(place, Table(place, inner))
    return Table(table.place, entries)


def _is_open(entries: Mapping[str, Entry], name: str) -> bool:
    node = entries[name].node if name in entries else None
    return node is None or is_null(node) or (isinstance(node, Scalar) and node.text == "auto")


def _set(entries: dict[str, Entry], name: str, text: str, place: Place) -> None:
    entries[name] = Entry(place, Scalar.of_text(place, text))


def _resolve(pool: Pool, path: str, report: Report) -> Pool:
    """Return the pool with the defaults that depend on other keys."""
    pool = with_tls(pool, path, report)
    timeouts, prefix = pool.timeouts, join(path, "timeouts.")
    if f"{prefix}slow" not in report.origins and 0 < timeouts.request <= timeouts.slow:
        timeouts = replace(timeouts, slow=timeouts.request / 2)
        report.origins[f"{prefix}slow"] = Place(f"half of {prefix}request")
    if report.origins.get(f"{prefix}shutdown_delay") == KUBERNETES:
        timeouts = replace(timeouts, shutdown_delay=min(_KUBERNETES_DELAY_S, timeouts.graceful / 2))
    limits = pool.limits
    if limits.request_line > limits.head:
        limits = replace(limits, request_line=limits.head)
        report.origins[join(path, "limits.request_line")] = Place(join(path, "limits.head"))
    return replace(
        pool, timeouts=timeouts, limits=limits, listen=tuple(_with_mode(one) for one in pool.listen)
    )


def _resolve_admin(admin: Admin, shared: Table, pools: Mapping[str, Pool], report: Report) -> Admin:
    """Return the admin process with the user that the server has for all pools, else of the first pool that has one."""
    account = read_keys(Pool, _only(shared, ["user", "group"]), "", report)
    user, group = account.get("user"), account.get("group")
    if user is None and group is None:
        accounts = [(pool.user, pool.group) for pool in pools.values()]
        user, group = next((one for one in accounts if one[0] is not None), accounts[0])
    admin = with_tls(admin, "admin", report)
    return replace(
        admin,
        user=user,
        group=group,
        listen=tuple(replace(_with_mode(one), of_admin=True) for one in admin.listen),
    )


def _with_mode(listen: Listen) -> Listen:
    unset = listen.mode is None and isinstance(listen.parsed, UnixAddress)
    return replace(listen, mode=_UNIX_SOCKET_MODE) if unset else listen
