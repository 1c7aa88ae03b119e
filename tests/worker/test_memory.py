"""What a worker says of its memory, and when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prefork.cell import Cell
from prefork.figures import Memory
from prefork.scoreboard import Scoreboard
from prefork.worker import memory
from prefork.worker.memory import EVERY_S, LAST_S, MemoryWatch, measure

MIB = 1 << 20
ROLLUP = """\
55a5bffbd000-7fffcb7f0000 ---p 00000000 00:00 0                          [rollup]
Rss:              317876 kB
Pss:              157702 kB
Shared_Dirty:     313172 kB
Private_Clean:        20 kB
Private_Dirty:       920 kB
Swap:                  0 kB
"""


@pytest.fixture
def cell() -> Iterator[Cell]:
    doorbell = os.eventfd(0)
    board = Scoreboard.create("web", 1, cells=1, threads=1, doorbell=doorbell)
    yield board.cells[0]
    board.close()
    os.close(doorbell)


def test_the_figures_of_a_process(tmp_path: Path) -> None:
    (tmp_path / "rollup").write_text(ROLLUP)
    assert measure(str(tmp_path / "rollup")) == Memory(317876 * 1024, 157702 * 1024, 940 * 1024)
    assert measure(str(tmp_path / "none")) is None
    before = measure()
    ballast = bytearray(os.urandom(16 * MIB))
    after = measure()
    assert before is not None
    assert after is not None
    assert 15 * MIB < after.uss_bytes - before.uss_bytes < 60 * MIB
    assert len(ballast) == 16 * MIB


@pytest.mark.parametrize(
    ("begins_with", "most", "grows_to", "told"),
    [
        (10, 100, 50, []),
        (10, 100, 101, ["it uses 101.0 MiB of its own, recycle.memory is 100MiB"]),
        (10, 0, 5000, []),
        (101, 100, 5000, ["recycle-memory-too-low"]),  # each successor would be too big as well
    ],
)
def test_who_is_told(
    monkeypatch: pytest.MonkeyPatch, cell: Cell, begins_with: int, most: int, grows_to: int, told: list[str]
) -> None:
    now, uss, measured, heard = 100.0, begins_with, 0, list[str]()

    def fake_measure() -> Memory:
        nonlocal measured, now
        measured += 1
        now += 0.001
        return Memory(2 * uss * MIB, uss * MIB, uss * MIB)

    monkeypatch.setattr(memory, "measure", fake_measure)
    monkeypatch.setattr(memory, "monotonic", lambda: now)
    assert cell.memory is None
    log: Any = SimpleNamespace(warning=lambda event, message, **fields: heard.append(event))
    watch = MemoryWatch(cell, most * MIB, heard.append, log)
    uss = grows_to
    watch.look()
    assert measured == 1
    now += LAST_S + 0.1
    watch.look()
    assert measured == 1
    watch.look(last=True)
    assert measured == 2
    assert cell.memory == Memory(2 * grows_to * MIB, grows_to * MIB, grows_to * MIB)
    assert heard == told
    now += EVERY_S + 0.1
    watch.look()
    assert measured == 3
    assert len(heard) == len(told) + (heard != [] and "too-low" not in heard[0])
