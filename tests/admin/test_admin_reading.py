"""What the admin process reads: status and documents while they change, scoreboards that come and go."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prefork.admin import reading
from prefork.admin.answer import NotYet
from prefork.admin.reading import Reading
from prefork.bulletin import Bulletin
from prefork.figures import Counts
from prefork.records import plain
from prefork.scoreboard import Scoreboard


@pytest.fixture
def bulletin() -> Iterator[Bulletin]:
    made = Bulletin.create()
    yield made
    made.close()


@pytest.fixture
def lifeline() -> Iterator[tuple[int, int]]:
    ends, ours = os.pipe()
    yield ends, ours
    os.close(ends)


def publish(bulletin: Bulletin, *generations: int, requests: int = 0) -> None:
    worker = {
        "slot": "web.0", "pid": None, "generation": generations[-1], "cell": 0, "state": "ready",
        "spawned_at": 0.0, "ready_at": 0.0,
    }  # fmt: skip
    pool = {
        "workers_wanted": 1, "bounds": None, "threads": 1, "totals": plain(Counts(accepted=requests)), "spawned": 1,
        "deaths": {}, "cpu_ns": {}, "generations": list(generations), "listeners": [], "workers": [worker],
    }  # fmt: skip
    found: dict[str, Any] = {
        "name": "shop", "version": "1", "pid": 1, "state": "serving", "generation": generations[-1],
        "started_at": 0.0, "config": [], "config_hash": "", "ready": True, "healthy": True, "reloads": [],
        "reloads_total": {}, "last_upgrade": None, "pools": {"web": pool}, "deaths": [],
    }  # fmt: skip
    bulletin.publish(json.dumps(found).encode())


def give(source: Reading, generation: int, accepted: int = 0) -> None:
    board = Scoreboard.create("web", generation, cells=1, threads=1, doorbell=-1)
    board.cells[0].claim(os.getpid())
    for _ in range(accepted):
        board.cells[0].add_accepted()
    source.add_board("web", generation, os.dup(board.fd))
    board.close()


def mapped(generation: int) -> bool:
    return f"prefork-web-{generation} " in Path("/proc/self/maps").read_text()


def accepted(source: Reading) -> int:
    found: int = source.status()["pools"]["web"]["accepted"]
    return found


def test_what_cannot_be_had_now_is_answered_as_before(bulletin: Bulletin, lifeline: tuple[int, int]) -> None:
    source = Reading(Bulletin(bulletin.fd), lifeline[0])
    assert source.document() is None
    with pytest.raises(NotYet):
        source.status()
    give(source, 1, accepted=3)
    publish(bulletin, 1, requests=4)
    assert accepted(source) == 7
    bulletin.touch()  # the master is stopped in the middle of a change
    assert accepted(source) == 7
    assert source.document() is not None
    publish(bulletin, 1, requests=5)
    assert accepted(source) == 8


def test_who_has_nothing_of_before_waits_for_what_belongs_together(
    bulletin: Bulletin, lifeline: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Reading(Bulletin(bulletin.fd), lifeline[0])
    give(source, 1, accepted=3)
    publish(bulletin, 1, requests=4)
    bulletin.touch()
    with ThreadPoolExecutor() as pool:
        found = pool.submit(accepted, source)
        publish(bulletin, 1, 2, requests=5)  # lists a worker whose scoreboard is on its way
        give(source, 2, accepted=2)
        assert found.result(30) == 7
    monkeypatch.setattr(reading, "FIRST_PATIENCE_S", 0.0)
    source = Reading(Bulletin(bulletin.fd), lifeline[0])
    bulletin.touch()
    with pytest.raises(NotYet):  # rather than counters without those of the workers
        source.status()


def test_scoreboards_come_before_they_are_listed_and_go_when_they_are_not_any_more(
    bulletin: Bulletin, lifeline: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Reading(Bulletin(bulletin.fd), lifeline[0])
    publish(bulletin, 1)
    give(source, 1, accepted=1)
    give(source, 2, accepted=2)
    assert accepted(source) == 1
    publish(bulletin, 1, 2)
    assert accepted(source) == 2
    assert mapped(1)
    publish(bulletin, 2)
    source.status()
    assert not mapped(1)
    give(source, 3)  # of a reload that failed before it was seen
    source.status()
    assert mapped(3)
    monkeypatch.setattr(reading, "UNLISTED_S", 0.0)
    source.status()
    assert not mapped(3)
    with pytest.raises(ValueError, match="no scoreboard"):
        source.add_board("web", 4, os.dup(bulletin.fd))


def test_it_sees_that_the_master_is_gone(bulletin: Bulletin, lifeline: tuple[int, int]) -> None:
    source = Reading(Bulletin(bulletin.fd), lifeline[0])
    assert source.is_master_alive()
    os.close(lifeline[1])
    assert not source.is_master_alive()
