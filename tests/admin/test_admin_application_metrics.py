"""The application's own metrics: what prometheus-client's files hold, whoever wrote them and however they ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from prefork.admin.application_metrics import ApplicationMetrics
from prefork.admin.metrics import exposition

PROGRAM = """
import os, sys
from prometheus_client import Counter, Gauge, Histogram, Summary
Counter("jobs", "Jobs.", ["kind"]).labels("a\\nb").inc(2)
Histogram("took_seconds", "Time.", buckets=[1, 2]).observe(1.5)
Summary("size_bytes", "Size.").observe(10)
for mode, value in dict(all=1, liveall=2, min=3, livemin=4, max=5, livemax=6, sum=7, livesum=8, mostrecent=9).items():
    gauge = Gauge(f"g_{mode}", "G.", multiprocess_mode=mode)
    gauge.set(value + int(sys.argv[1]))
print(os.getpid(), flush=True)
sys.stdin.read()
"""


class Application:
    """Processes that count, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def run(self, plus: int = 0) -> int:
        """Start one that has counted; return its pid."""
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(plus)],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self.folder)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return int(process.stdout.readline())

    def kill(self) -> None:
        """Kill and reap all."""
        for process in self.processes:
            process.kill()
            process.communicate()
        self.processes.clear()


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    folder = tmp_path / "web"
    folder.mkdir()
    made = Application(folder)
    yield made
    made.kill()


def read(folder: Path) -> tuple[dict[str, float], dict[str, int]]:
    """Return the samples, as /metrics shows them, and what was skipped in each pool."""
    metrics, skipped = ApplicationMetrics(str(folder)).collect(["web"])
    text = exposition(metrics, "")[0].decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v!r}" for k, v in sorted(sample.labels.items()) if k != "pool")
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found, dict(skipped)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_totals_stay_when_processes_die_and_files_do_not_pile_up(application, tmp_path):
    one, two = application.run(), application.run(plus=10)
    living = {
        "jobs_total{kind='a\\nb'}": 4, "took_seconds_bucket{le='1.0'}": 0, "took_seconds_bucket{le='2.0'}": 2,
        "took_seconds_bucket{le='+Inf'}": 2, "took_seconds_count": 2, "took_seconds_sum": 3,
        "size_bytes_count": 2, "size_bytes_sum": 20, "g_min": 3, "g_max": 15, "g_sum": 24, "g_mostrecent": 19,
    }  # fmt: skip
    with_them = {
        f"g_all{{pid='{one}'}}": 1, f"g_all{{pid='{two}'}}": 11, f"g_liveall{{pid='{one}'}}": 2,
        f"g_liveall{{pid='{two}'}}": 12, "g_livemin": 4, "g_livemax": 16, "g_livesum": 26,
    }  # fmt: skip
    assert read(tmp_path) == ({**living, **with_them}, {"web": 0})
    application.kill()
    kinds = (
        "counter",
        "histogram",
        "summary",
        *(f"gauge_{mode}" for mode in ("max", "min", "mostrecent", "sum")),
    )
    for _ in range(2):
        assert read(tmp_path) == (living, {"web": 0})
        assert names(application.folder) == {f"{kind}_merged.db" for kind in kinds}
    application.run()
    found, _ = read(tmp_path)
    assert (found["jobs_total{kind='a\\nb'}"], found["took_seconds_count"], found["g_sum"]) == (6, 3, 31)
    application.kill()
    assert read(tmp_path)[0]["jobs_total{kind='a\\nb'}"] == 6
    # An application that serves its metrics itself reads the same from what we have made of its files.
    own = (
        "import prometheus_client.multiprocess as m, prometheus_client as p; r = p.CollectorRegistry(); "
        "m.MultiProcessCollector(r); print(p.generate_latest(r).decode())"
    )
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(application.folder)}
    shown = subprocess.run(
        [sys.executable, "-c", own], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert 'jobs_total{kind="a\\nb"} 6.0' in shown.stdout


def write(path: Path, *entries: tuple[str, float]) -> None:
    values = MmapedDict(str(path))
    for key, value in entries:
        values.write_value(key, value, 0.0)
    values.close()


def key(family: str, sample: str, help: str = "H.", **labels: str) -> str:
    return mmap_key(family, sample, list(labels), list(labels.values()), help)


class Killed(BaseException):
    """Ends the admin process where it is."""


@pytest.mark.parametrize("at", ["fchmod", "open", "rename", "unlink"])
@pytest.mark.parametrize("survived", range(5))
def test_who_is_killed_while_it_merges_loses_nothing_and_counts_nothing_twice(
    tmp_path, monkeypatch, at, survived
):
    folder = tmp_path / "web"
    folder.mkdir()
    for pid in (999999998, 999999999):  # nobody's
        write(folder / f"counter_{pid}.db", (key("x", "x_total"), 1))
    calls = iter(range(99))
    real = getattr(os, at)

    def dying(path, *args, **kwargs):
        if ("." in str(path) or at == "fchmod") and next(calls) >= survived:
            raise Killed
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, at, dying)
    for _ in range(4):
        with contextlib.suppress(Killed):
            read(tmp_path)
    monkeypatch.undo()
    assert read(tmp_path) == ({"x_total": 2}, {"web": 0})
    assert names(folder) == {"counter_merged.db"}


def test_nothing_in_a_file_takes_the_page_away(tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    me = os.getpid()
    write(
        folder / f"counter_{me}.db",
        (key("good", "good_total"), 1), (key("good", "good_total", "Another help."), 2),
        (key("prefork_requests", "prefork_requests_total"), 99), (key("prefork_new", "prefork_new_total"), 99),
        ("no json", 1), ("[1, 2]", 1), (json.dumps(["a", "a", {"x": 1}, "h"]), 1), ('["a","a",{"x":"\\ud800"},"h"]', 1),
        (key("bad name\n", "bad name\n"), 1), (key("labelled", "labelled_total", pool="mine"), 5),
    )  # fmt: skip
    write(folder / f"gauge_sum_{me}.db", (key("good", "good"), 7))
    write(folder / f"histogram_{me}.db", (key("h", "h_sum"), 4), (key("h", "h_bucket", le="nonsense"), 1),
          (key("h", "h_bucket", le="1.0"), 1))  # fmt: skip
    (folder / f"summary_{me}.db").write_bytes(b"")
    (folder / f"gauge_max_{me}.db").write_bytes(
        struct.pack("iii", 5000, 0, -28) + bytes(5000)
    )  # leads in circles
    (folder / f"gauge_min_{me}.db").symlink_to("/etc/passwd")
    os.mkfifo(folder / f"gauge_all_{me}.db")
    (folder / "counter_notes.txt").write_text("of somebody")
    found, skipped = read(tmp_path)
    assert found == {
        "good_total": 3, "labelled_total{exported_pool='mine'}": 5, "h_bucket{le='1.0'}": 1,
        "h_bucket{le='+Inf'}": 1, "h_count": 1, "h_sum": 4,
    }  # fmt: skip
    # Three files; two names of ours, five keys that are none, and a name with two types.
    assert skipped == {"web": 3 + 2 + 5 + 1}


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        ([("counter", key("x", "x_total", __name__="y"))], {}),  # Prometheus refuses the whole answer
        ([("gauge_sum", key("prefork", "prefork_ready"))], {}),
        ([("counter", key("x", "x"))], {}),
        ([("summary", key("x", "xylophone"))], {}),
        ([("counter", key("x", "x_total")), ("gauge_sum", key("x_total", "x_total"))], {"x_total": 1}),
        (
            [("gauge_sum", key("h_count", "h_count")), ("histogram", key("h", "h_bucket", le="1.0"))],
            {"h_count": 1},
        ),
    ],
)
def test_no_name_clashes_with_another(tmp_path, files, shown):
    (tmp_path / "web").mkdir()
    for type, entry in files:
        write(tmp_path / "web" / f"{type}_{os.getpid()}.db", (entry, 1))
    assert read(tmp_path) == (shown, {"web": 1})


def test_pools_are_told_apart(tmp_path):
    for pool, type, amount in (("api", "counter", 1), ("web", "counter", 2), ("zoo", "gauge_sum", 4)):
        (tmp_path / pool).mkdir()
        sample = "x_total" if type == "counter" else "x"
        write(tmp_path / pool / f"{type}_{os.getpid()}.db", (key("x", sample), amount))
    metrics, skipped = ApplicationMetrics(str(tmp_path)).collect(["api", "web", "zoo"])
    assert [(s.name, s.labels, s.value) for metric in metrics for s in metric.samples] == [
        ("x_total", {"pool": "api"}, 1),
        ("x_total", {"pool": "web"}, 2),
    ]
    assert skipped == {"api": 0, "web": 0, "zoo": 1}


def test_without_a_folder_there_is_nothing(tmp_path):
    assert ApplicationMetrics(None).collect(["web"]) == ([], {})
    assert ApplicationMetrics(str(tmp_path)).collect(["web"]) == ([], {"web": 0})


def test_files_are_merged_although_nobody_scrapes(application, tmp_path, monkeypatch):
    application.run()
    application.kill()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 1:
            raise InterruptedError

    monkeypatch.setattr("prefork.admin.application_metrics.time.sleep", sleep)
    with pytest.raises(InterruptedError):
        ApplicationMetrics(str(tmp_path)).keep_tidy()
    assert slept == [60, 60]
    assert "counter_merged.db" in names(application.folder)
    assert not [name for name in names(application.folder) if "merged" not in name]


def test_only_one_process_merges_at_a_time(application, tmp_path, monkeypatch):
    """The other reads what there is; and the application, which may hold the lock, too, cannot stop it."""
    monkeypatch.setattr("prefork.admin.application_metrics._ATTEMPTS", 2)
    application.run()
    application.kill()
    fd = os.open(application.folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    before = names(application.folder)
    assert read(tmp_path)[0]["took_seconds_count"] == 1
    assert names(application.folder) == before
    os.close(fd)
    assert read(tmp_path)[0]["took_seconds_count"] == 1
    assert "histogram_merged.db" in names(application.folder)
