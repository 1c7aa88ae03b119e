"""When the master looks at its pools, and that it stops."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_capacity import machine

from prefork.master.scaling_rule import Bounds
from prefork.master.upkeep import CALM_LOOK_S, LOOK_S, Upkeep
from prefork.relay import Relay


def pool(wanted: int = 2, bounds: Bounds | None = None, pressure: float = 0.9) -> Any:
    config = SimpleNamespace(recycle=SimpleNamespace(pressure=pressure))
    return SimpleNamespace(
        name="web",
        bounds=bounds,
        current=SimpleNamespace(config=config, listeners=()),
        table=SimpleNamespace(is_settled=True, is_stopping=False, wanted=wanted, workers={}),
        relay=SimpleNamespace(waiting=lambda: 0),
        serving=list,
    )


@pytest.mark.parametrize(
    ("made", "limit", "waits"),
    [
        # after a request; while requests run; when there are none any more, and from then on
        (pool(), "max", (None, None, None, None)),
        (pool(), "1000", (2.0, 2.0, None, None)),
        (pool(pressure=0.0), "1000", (None, None, None, None)),
        (pool(2, Bounds(2, 4)), "max", (LOOK_S, LOOK_S, None, None)),
        (pool(3, Bounds(2, 4)), "max", (LOOK_S, LOOK_S, CALM_LOOK_S, CALM_LOOK_S)),
        (pool(3, Bounds(2, 4)), "1000", (LOOK_S, LOOK_S, CALM_LOOK_S, CALM_LOOK_S)),
    ],
)
def test_at_rest_there_are_no_timers(
    tmp_path: Path, made: Any, limit: str, waits: tuple[float | None, ...]
) -> None:
    root = machine(tmp_path, {"memory.max": limit, "memory.current": "100", "memory.stat": "inactive_file 0"})
    log: Any = SimpleNamespace()
    upkeep = Upkeep(log, str(root))
    assert upkeep.next_look is None
    now, found = 1000.0, []
    upkeep.wake(now)
    assert upkeep.next_look == now
    for busy in (False, True, False, False):
        upkeep.look([made], now, busy=busy)
        found.append(None if upkeep.next_look is None else round(upkeep.next_look - now, 6))
        now = upkeep.next_look or now + 5
    assert tuple(found) == waits
    upkeep.next_look = now + 100
    upkeep.wake(now)  # whatever it waits for, it looks soon
    assert upkeep.next_look == now + LOOK_S


def test_how_many_wait_in_the_relay() -> None:
    relay = Relay.make()
    for _ in range(3):
        relay.nudge()
    assert relay.waiting() == 0
    relay.way_in.send(b"x" * 100, socket.MSG_DONTWAIT)
    assert relay.waiting() == 1
    for _ in range(4):
        relay.way_in.send(b"x" * 400, socket.MSG_DONTWAIT)
    assert 3 <= relay.waiting() <= 5
    relay.close()
