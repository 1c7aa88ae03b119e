"""``prefork status`` as text: at most 80 columns, or those of the terminal. Pure. Runs in a command."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from prefork.cli.figures import UNKNOWN, count, duration, how, printable, size, whose

MOST_DEATHS = 5

Status = dict[str, Any]


def status_text(status: Status, now: float, width: int | None = None) -> str:
    """Return the document as text; ``now`` is the time of day, in seconds since 1970."""
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
    lines = [*_head(status, now)]
    for name, pool in status["pools"].items():
        lines += ["", *_pool(name, pool)]
    if sudden := [death for death in status["deaths"] if not death["expected"]]:
        lines += ["", "last deaths, not expected:", *(_death(each, now) for each in sudden[:MOST_DEATHS])]
    return "\n".join(_cut(printable(line), width) for line in lines)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _head(status: Status, now: float) -> Iterator[str]:
    yield (
        f"{status['name']} is {status['state']}: generation {status['generation']}, pid {status['pid']}, "
        f"up {duration(status['uptime_s'])}, prefork {status['version']}"
    )
    yield f"config: {', '.join(status['config']) or 'command line'} ({status['config_hash']})"
    reload = status["last_reload"]
    if reload:
        when = f"last reload: {reload['result']}, generation {reload['generation']}, {_ago(reload['ended_at'], now)}"
        if reload["error"]:
            yield when
            yield from (f"  {line}" for line in str(reload["error"]).splitlines()[:MOST_DEATHS])
        else:
            yield f"{when}, took {duration(reload['took_s'])}"
    upgrade = status.get("last_upgrade")
    if upgrade:
        versions = (
            f", from {upgrade['predecessor']} to {upgrade['version']}" if upgrade["version"] else ""
        )  # of one that was refused they are not known
        yield f"last upgrade: {upgrade['result']}{versions}, {_ago(upgrade['ended_at'], now)}"
        if upgrade["error"]:
            yield f"  {str(upgrade['error']).splitlines()[0]}"


def _pool(name: str, pool: Status) -> Iterator[str]:
    states = [worker["state"] for worker in pool["workers"]]
    shown = ", ".join(
        f"{states.count(s)} {s}" for s in ("idle", "busy", "booting", "draining") if s in states
    )
    bounds = pool.get("bounds")
    between = f" ({bounds['min']} to {bounds['max']})" if bounds else ""
    yield f"{name}: {pool['workers_wanted']} workers wanted{between}: {shown or 'none there'}"
    refused = sum((pool.get("refused") or {}).values())
    yield (
        f"  {count(pool['requests'])} requests, {count(pool['errors'])} errors, {count(pool['handed_over'])} handed "
        f"over, {count(pool.get('slow'))} slow, {count(pool.get('deadlines'))} late, {count(refused)} refused"
    )
    for listener in pool["listeners"]:
        queue, backlog = listener["queue"], listener["backlog"]
        waits = f"{UNKNOWN if queue is None else queue} of {UNKNOWN if backlog is None else backlog} wait"
        is_full = None not in (queue, backlog) and queue >= backlog
        yield f"  {listener['address']}: {waits}{', full: no more get in' * is_full}"
    connections = pool.get("connections") or {}
    open_now = ", ".join(f"{number} {state}" for state, number in connections.items() if number)
    yield f"  open connections: {open_now or 'none'}"
    yield f"  {'slot':<14} {'pid':>7} {'gen':>4} {'state':<8} {'reqs':>6} {'conn':>5} {'uss':>6} {'cpu':>6} {'up':>6}"
    for worker in sorted(pool["workers"], key=_position):
        yield (
            f"  {worker['slot']:<14} {_text(worker['pid']):>7} {worker['generation']:>4} {worker['state']:<8} "
            f"{count(worker['requests']):>6} {count(worker['connections']):>5} {size(worker['uss_bytes']):>6} "
            f"{duration(worker.get('cpu_s')):>6} {duration(worker['uptime_s']):>6}"
        )
        for request in worker["running"]:
            slow = ", slow" if request.get("slow") else ""
            yield f"    {request['method']} {request['target']} for {duration(request['elapsed_s'])}{slow}"


def _position(worker: Status) -> tuple[int, int]:
    return int(worker["slot"].rpartition(".")[2]), worker["generation"]


def _death(death: Status, now: float) -> str:
    why = f"{death['reason']}, {death['detail']}" if death["detail"] else death["reason"]
    return f"  {whose(death)} pid {_text(death['pid'])} {_ago(death['at'], now)}: {why} ({how(death)})"


def _ago(at: str | None, now: float) -> str:
    if at is None:
        return UNKNOWN
    return f"{duration(max(0.0, now - datetime.fromisoformat(at).timestamp()))} ago"


def _text(value: Any) -> str:
    return UNKNOWN if value is None else str(value)
