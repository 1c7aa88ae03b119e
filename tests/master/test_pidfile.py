"""The pidfile: whose it is, and when it is stale."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork.errors import ExitStatus
from prefork.master.pidfile import PidfileError, remove_pidfile, write_pidfile


@pytest.fixture
def other() -> Iterator[int]:
    """The pid of a process that lives through the test."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


def test_written_whole_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "shop.pid"
    write_pidfile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["shop.pid"]
    remove_pidfile(str(path))
    assert os.listdir(tmp_path) == []


def test_of_a_living_server_is_refused_and_kept(tmp_path: Path, other: int) -> None:
    path = tmp_path / "shop.pid"
    path.write_text(f"{other}\n")
    with pytest.raises(PidfileError, match=f"the server with pid {other} that wrote it still runs") as error:
        write_pidfile(str(path))
    assert error.value.status is ExitStatus.USAGE
    remove_pidfile(str(path))
    assert path.read_text() == f"{other}\n"


@pytest.mark.parametrize("text", ["", "garbage", "0", "4194305", "-1", "99999999999999999999999"])
def test_a_stale_one_is_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shop.pid"
    path.write_text(text)
    write_pidfile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_process_that_is_younger_than_the_file_did_not_write_it(tmp_path: Path, other: int) -> None:
    path = tmp_path / "shop.pid"
    path.write_text(f"{other}\n")
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    write_pidfile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"


def test_no_directory() -> None:
    with pytest.raises(PidfileError, match=r"pidfile /no/such/x\.pid: cannot be written \(No such file"):
        write_pidfile("/no/such/x.pid")
