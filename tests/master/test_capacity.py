"""workers: auto, on made-up machines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from prefork.config import Pool
from prefork.errors import ConfigError
from prefork.master.capacity import worker_count
from prefork.master.cgroup import cpu_quota, memory_limit, oom_kills

V2_MOUNT = "31 23 0:28 {subtree} /sys/fs/cgroup rw,relatime - cgroup2 cgroup rw"
V1_MOUNTS = (
    "32 31 0:29 {subtree} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {subtree} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
)
MIB = 1024 * 1024


def pool(workers: int | str = "auto", threads: int = 1) -> Pool:
    return cast(Pool, SimpleNamespace(workers=workers, threads=threads))


def machine(
    root: Path, files: dict[str, str], *, version: int = 2, group: str = "/", subtree: str = "/"
) -> Path:
    """Lay out /proc and /sys below ``root``; the keys of ``files`` are relative to /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    if version == 2:
        memberships, mounts = f"0::{group}\n", V2_MOUNT
    else:
        memberships, mounts = f"4:memory:{group}\n3:cpu,cpuacct:{group}\n0::/\n", V1_MOUNTS
    (root / "proc/self/cgroup").write_text(memberships)
    (root / "proc/self/mountinfo").write_text(
        f"23 1 8:1 / / rw - ext4 /dev/sda rw\n{mounts.format(subtree=subtree)}\n"
    )
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "threads", "environ", "n", "explanation"),
    [
        ({}, 1, {}, 8, "2 × 4 CPUs (affinity) = 8"),
        ({"cpu.max": "max 100000"}, 1, {}, 8, "2 × 4 CPUs (affinity) = 8"),
        ({"cpu.max": "200000 100000"}, 1, {}, 4, "2 × 2 CPUs (cpu.max 200000 100000) = 4"),
        ({"cpu.max": "150000 100000"}, 1, {}, 3, "2 × 1.5 CPUs (cpu.max 150000 100000) = 3"),
        ({"cpu.max": "900000 100000"}, 1, {}, 8, "2 × 4 CPUs (affinity) = 8"),
        ({"cpu.max": "250000 100000"}, 8, {}, 3, "2.5 CPUs (cpu.max 250000 100000) with 8 threads each = 3"),
        ({"cpu.max": "50000 100000"}, 1, {}, 2, "2 × 0.5 CPUs (cpu.max 50000 100000) = 1, at least 2"),
        (
            {"memory.max": str(512 * MIB)},
            1,
            {},
            6,
            "2 × 4 CPUs (affinity) = 8, "
            f"at most 6 by memory (memory.max {512 * MIB} = 512 MiB, less 128, 64 for each)",
        ),
        ({"memory.max": "max"}, 1, {"WEB_CONCURRENCY": "5"}, 5, "5 (WEB_CONCURRENCY)"),
    ],
)
def test_the_sum(
    tmp_path: Path, files: dict[str, str], threads: int, environ: dict[str, str], n: int, explanation: str
) -> None:
    root = machine(tmp_path, files)
    assert worker_count(pool(threads=threads), environ, root, cpus=4) == (n, f"workers: auto = {explanation}")


def test_at_most_8_in_a_container_without_a_quota(tmp_path: Path) -> None:
    root = machine(tmp_path, {})
    assert worker_count(pool(), {}, root, cpus=64).n == 128
    n, explanation = worker_count(pool(), {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, root, cpus=64)
    assert (n, explanation[-44:]) == (8, ", at most 8 in a container without a CPU quota"[-44:])
    (root / ".dockerenv").touch()
    assert worker_count(pool(), {}, root, cpus=64).n == 8


def test_a_number_is_taken_as_it_is(tmp_path: Path) -> None:
    assert worker_count(pool(workers=3), {"WEB_CONCURRENCY": "9"}, tmp_path) == (3, "workers: 3")


@pytest.mark.parametrize("text", ["two", "0", "-1", "1.5"])
def test_web_concurrency_must_be_a_number(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="WEB_CONCURRENCY: expected an integer >= 1"):
        worker_count(pool(), {"WEB_CONCURRENCY": text}, tmp_path)


def test_the_tightest_ancestor_counts(tmp_path: Path) -> None:
    files = {
        "kube.slice/pod/cpu.max": "400000 100000",
        "kube.slice/cpu.max": "100000 100000",
        "kube.slice/pod/memory.max": "max",
        "kube.slice/memory.max": "1000",
    }
    root = machine(tmp_path, files, group="/kube.slice/pod")
    assert cpu_quota(root) == (1.0, "cpu.max 100000 100000")
    assert memory_limit(root) == (1000, "memory.max 1000")


@pytest.mark.parametrize(
    ("group", "subtree", "folder"),
    [
        ("/docker/abc", "/docker/abc", ""),  # version 1 without a namespace: our group is what is mounted
        ("/docker/abc", "/", "docker/abc/"),
        ("/../x", "/", ""),  # a namespace that does not contain us
    ],
)
def test_version_1_and_where_it_is_mounted(tmp_path: Path, group: str, subtree: str, folder: str) -> None:
    files = {
        f"cpu,cpuacct/{folder}cpu.cfs_quota_us": "300000",
        f"cpu,cpuacct/{folder}cpu.cfs_period_us": "100000",
        f"memory/{folder}memory.limit_in_bytes": "5000",
        f"memory/{folder}memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3",
    }
    root = machine(tmp_path, files, version=1, group=group, subtree=subtree)
    assert cpu_quota(root) == (3.0, "cpu.cfs_quota_us 300000 / 100000")
    assert memory_limit(root) == (5000, "memory.limit_in_bytes 5000")
    assert oom_kills(root) == 3


def test_version_1_without_limits(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": "9223372036854771712",
    }
    root = machine(tmp_path, files, version=1)
    assert cpu_quota(root) is None
    assert memory_limit(root) is None
    assert oom_kills(root) is None


def test_oom_kills_of_our_group(tmp_path: Path) -> None:
    root = machine(tmp_path, {"a/memory.events": "low 0\noom 2\noom_kill 1\noom_group_kill 0"}, group="/a")
    assert oom_kills(root) == 1


def test_this_machine_and_one_without_cgroups_have_an_answer(tmp_path: Path) -> None:
    assert worker_count(pool(), {}).n >= 2
    assert worker_count(pool(), {}, tmp_path, cpus=1).n == 2
    assert oom_kills(tmp_path) is None
