"""What is done when memory becomes scarce, in made-up control groups."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from test_capacity import machine

from prefork.config import load
from prefork.errors import PreforkError
from prefork.figures import Memory
from prefork.master import surge
from prefork.master.cgroup import MemoryUse, memory_use
from prefork.master.pressure import FIRST_PAUSE_S, LONGEST_PAUSE_S, LOOK_S, REASON, Pressure
from prefork.master.surge import fit

MIB = 1 << 20


@pytest.mark.parametrize("version", [1, 2])
def test_use_is_without_inactive_file_pages_and_of_the_tightest_group(tmp_path: Path, version: int) -> None:
    names = ("memory/%s/memory.limit_in_bytes", "memory/%s/memory.usage_in_bytes", "memory/%s/memory.stat")
    stat = "inactive_file 1\ntotal_inactive_file 300"
    if version == 2:
        names = ("%s/memory.max", "%s/memory.current", "%s/memory.stat")
        stat = "file 500\ninactive_file 300"
    values = {"slice": ("5000", "4000", stat), "slice/pod": ("1000", "900", stat)}
    files = {
        name % group: text for group, texts in values.items() for name, text in zip(names, texts, strict=True)
    }
    assert memory_use(machine(tmp_path, files, version=version, group="/slice/pod")) == MemoryUse(600, 1000)


def test_without_a_limit_there_is_no_use_and_no_timer(tmp_path: Path) -> None:
    root = machine(tmp_path, {"memory.max": "max", "memory.current": "900"})
    assert memory_use(root) is None
    assert memory_use(tmp_path / "none") is None
    pressure = Pressure(str(root))
    for now in (1000.0, 1000.1, 1000.0 + LOOK_S):
        assert pressure.look(cast(Any, [Pool("web", 300)]), now) is None


class Pool:
    """Workers by the MiB that they have of their own; a recycled one is gone when the test says so."""

    def __init__(self, name: str, *uss: int, share: float = 0.9) -> None:
        self.name = name
        self.uss = dict(enumerate(uss))
        self.recycled: list[int] = []
        self.told: list[str] = []
        self.current = SimpleNamespace(
            config=SimpleNamespace(recycle=SimpleNamespace(pressure=share), name=name)
        )
        self.table = SimpleNamespace(is_settled=True, workers={}, wanted=len(uss))
        self.mold_pid: int | None = None

    def serving(self) -> list[tuple[Any, Any]]:
        return [
            (SimpleNamespace(id=id), SimpleNamespace(memory=Memory(0, 0, uss * MIB) if uss else None))
            for id, uss in self.uss.items()
            if id not in self.table.workers
        ]

    def recycle(self, worker: Any, reason: str) -> None:
        assert reason == REASON
        self.recycled.append(worker.id)
        self.table.workers[worker.id] = SimpleNamespace(reason=reason)

    def log_of(self, worker: Any) -> Any:
        return SimpleNamespace(warning=lambda event, message, **fields: self.told.append(message))

    def replace(self) -> None:
        self.table.workers.clear()


class Bench:
    def __init__(self, root: Path, *pools: Pool) -> None:
        self.root = machine(root, {"memory.max": str(1000 * MIB), "memory.stat": "inactive_file 0"})
        self.pools = pools
        self.now = 1000.0
        self.pressure = Pressure(str(root))

    def run(self, used_mib: int, seconds: float = 0.0) -> None:
        (self.root / "sys/fs/cgroup/memory.current").write_text(str(used_mib * MIB))
        until = self.now + seconds
        while True:
            self.pressure.look(cast(Any, self.pools), self.now)
            if self.now >= until:
                break
            self.now += LOOK_S


def test_the_biggest_worker_of_all_pools_is_recycled_and_told_with_the_numbers(tmp_path: Path) -> None:
    web, api = Pool("web", 50, 300, 0), Pool("api", 310, 20)
    bench = Bench(tmp_path, web, api)
    bench.run(900, 60)
    assert (web.recycled, api.recycled) == ([], [])
    bench.run(930, 60)  # one at a time, as long as it takes
    assert (web.recycled, api.recycled) == ([], [0])
    assert api.told == [
        "930 MiB of 1000 MiB are in use, 93% with recycle.pressure at 90%: this worker is replaced, the biggest "
        "with 310 MiB of its own"
    ]


def test_what_does_not_help_is_done_less_and_less_often(tmp_path: Path) -> None:
    web = Pool("web", 50, 300)
    bench = Bench(tmp_path, web)
    instants = []
    while len(instants) < 7:
        bench.run(950)
        if web.table.workers:
            instants.append(bench.now)
            web.replace()
        bench.now += LOOK_S
    gaps = [later - earlier for earlier, later in pairwise(instants)]
    assert all(gap >= pause for gap, pause in zip(gaps, (5, 10, 20, 40, 60, 60), strict=True))
    assert gaps[-1] <= LONGEST_PAUSE_S + LOOK_S
    bench.run(100, LOOK_S)
    bench.now += LONGEST_PAUSE_S
    for _ in range(2):  # it begins anew
        bench.run(950)
        web.replace()
        bench.now += FIRST_PAUSE_S + LOOK_S
    assert len(web.recycled) == 9


@pytest.mark.parametrize(
    ("pools", "looks_again"),
    [
        ([Pool("web", 300, share=0.0)], False),
        ([Pool("web", 300, share=0.97)], True),
        ([Pool("web", 0, 0)], True),
        ([], False),
    ],
)
def test_who_is_left_alone(tmp_path: Path, pools: Sequence[Pool], looks_again: bool) -> None:
    bench = Bench(tmp_path, *pools)
    bench.run(950)
    bench.now += LOOK_S
    assert (bench.pressure.look(cast(Any, pools), bench.now) is not None) == looks_again
    assert not any(pool.recycled for pool in pools)


def test_a_pool_that_reloads_is_left_alone(tmp_path: Path) -> None:
    web, api = Pool("web", 300), Pool("api", 20)
    web.table.is_settled = False
    Bench(tmp_path, web, api).run(950)
    assert (web.recycled, api.recycled) == ([], [0])


@pytest.mark.parametrize(
    ("used", "fits", "why"),
    [
        (500, 0.5, ""),
        (400, 0.5, ""),
        (
            501,
            1,
            "memory does not hold whole batches, so workers are replaced one by one: needed are 500 MiB "
            "(web 2 x 150 MiB and 100 MiB for a mold, api 1 x 50 MiB and 50 MiB for a mold), free are 499 MiB "
            "(501 MiB of 1000 MiB are in use)",
        ),
        (650, 1, "free are 350 MiB"),
        (
            651,
            None,
            "memory does not hold a reload, not even worker by worker: needed are 350 MiB "
            "(web 1 x 150 MiB and 100 MiB for a mold, api 1 x 50 MiB and 50 MiB for a mold), free are 349 MiB "
            "(651 MiB of 1000 MiB are in use)",
        ),
    ],
)
def test_whether_memory_holds_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: int, fits: float | None, why: str
) -> None:
    monkeypatch.setattr(surge, "_anonymous_bytes", lambda pid: pid * MIB)
    web, api = Pool("web", 150, 20, 0, 0), Pool("api", 50)
    web.mold_pid, api.mold_pid = 100, 50
    (tmp_path / "app.yaml").write_text(
        """
        pools:
          web: {app: "a:b", listen: 8000, reload: {batch: 50%}}
          api: {app: "a:b", listen: 8001, reload: {batch: 50%}}
          new: {app: "a:b", listen: 8002, reload: {batch: 50%}}
        """
    )
    config = load([str(tmp_path / "app.yaml")], environ={}).config
    pools: Any = {"web": web, "api": api, "gone": Pool("gone", 500)}
    use = MemoryUse(used * MIB, 1000 * MIB)
    if fits is None:
        with pytest.raises(PreforkError) as caught:
            fit(config, pools, use)
        assert str(caught.value) == why
        return
    fitted, told = fit(config, pools, use)
    assert [pool.reload.batch for pool in fitted.pools] == [fits] * 3
    assert why in told
    assert bool(told) == bool(why)
    assert fit(config, pools, None) == (config, "")


def test_the_memory_of_a_process_of_anybody() -> None:
    ballast = bytearray(b"x" * (32 * MIB))
    assert surge._anonymous_bytes(os.getpid()) > len(ballast)
    assert surge._anonymous_bytes(0) == 0
