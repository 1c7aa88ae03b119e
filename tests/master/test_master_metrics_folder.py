"""The folder of the application's own metrics: where it is, whose it is, and what is left of those of dead servers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefork import environment
from prefork.config import Config, Override, load
from prefork.log import Logs
from prefork.master import metrics_folder
from prefork.master.metrics_folder import PREFIX, MetricsFolder

SETTINGS = {"app": "shop:app", "log": {"to": "off", "access": "off"}}


def config(text: str = "admin: {}") -> Config:
    """Return the config of a server whose log goes nowhere."""
    key, _, value = text.partition(": ")
    given = [Override(name, setting, "test") for name, setting in SETTINGS.items()]
    return load([], [*given, Override.from_set(f"{key}={value}")], environ={}).config


def make(*places: Path, text: str = "admin: {}") -> MetricsFolder | None:
    made = config(text)
    return MetricsFolder.make(made, Logs(made.log).log, [str(place) for place in places])


def test_the_first_place_that_takes_it_has_it_until_the_end(tmp_path):
    folder = make(tmp_path / "missing", tmp_path)
    path = Path(folder.path)
    assert path.parent == tmp_path
    of_pool = Path(folder.of_pool(config().pools[0]))
    assert of_pool == path / "shop"
    (of_pool / "counter_1.db").write_bytes(b"x")
    assert folder.of_pool(config().pools[0]) == str(of_pool), "a later generation has the same"
    folder.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["name: shop", "metrics: {application: false}"])
def test_there_is_none_where_nobody_reads_it(tmp_path, text):
    assert make(tmp_path, text=text) is None


def test_without_any_place_the_server_does_without(tmp_path):
    assert make(tmp_path / "missing") is None


def test_what_a_killed_server_left_is_removed_by_the_next(tmp_path):
    living = make(tmp_path)
    killed = tmp_path / f"{PREFIX}killed"
    (killed / "shop").mkdir(parents=True)
    (killed / "shop" / "counter_1.db").write_bytes(b"x")
    (tmp_path / "of-somebody").mkdir()
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(tmp_path / "of-somebody")
    ours = make(tmp_path)
    assert set(tmp_path.iterdir()) == {
        Path(living.path), Path(ours.path), tmp_path / "of-somebody", link,
    }  # fmt: skip
    os.close(ours.lock)  # as the kernel does at its end
    make(tmp_path)
    assert not Path(ours.path).exists()
    assert Path(living.path).exists()


def test_what_is_in_memory_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(metrics_folder, "_tmpfs", lambda: {"/dev/shm"})
    monkeypatch.setattr(os.path, "ismount", lambda path: path in ("/", "/dev/shm"))
    assert metrics_folder._places()[:3] == ["/dev/shm", str(tmp_path), "/run"]


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_a_folder_of_the_users_own_is_left_alone(monkeypatch, name):
    for each in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        monkeypatch.delenv(each, raising=False)
    environment.collect_metrics_in("/ours")
    assert os.environ.pop("PROMETHEUS_MULTIPROC_DIR") == "/ours"
    monkeypatch.setenv(name, "/theirs")
    environment.collect_metrics_in("/ours")
    assert {os.environ.get(each) for each in (name.upper(), name.lower())} <= {"/theirs", None}
