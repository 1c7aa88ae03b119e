"""``prefork status`` as text."""

from __future__ import annotations

from typing import Any

import pytest

from prefork.cli.remote.status_text import status_text

ENDED = "2026-11-24T12:00:00+00:00"
NOW = 1795521602.0

STATUS: dict[str, Any] = {
    "name": "shop",
    "version": "1.0",
    "pid": 1,
    "state": "serving",
    "generation": 3,
    "uptime_s": 60.0,
    "config": ["app.yaml"],
    "config_hash": "a1",
    "last_reload": None,
    "pools": {},
    "deaths": [],
}


@pytest.mark.parametrize(
    ("result", "error", "predecessor", "version", "told"),
    [
        ("ok", None, "0.9", "1.0", ["last upgrade: ok, from 0.9 to 1.0, 2.0s ago"]),
        ("failed", "it is refused\nmore", None, None, ["last upgrade: failed, 2.0s ago", "  it is refused"]),
    ],
)
def test_the_last_upgrade(
    result: str, error: str | None, predecessor: str | None, version: str | None, told: list[str]
) -> None:
    upgrade = {"result": result, "error": error, "predecessor": predecessor, "version": version}
    shown = status_text({**STATUS, "last_upgrade": {**upgrade, "ended_at": ENDED}}, NOW)
    assert shown.splitlines()[2:] == told
