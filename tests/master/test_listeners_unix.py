"""Unix sockets: permissions, stale and live files, whose file it is."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from prefork.config import Listen
from prefork.errors import ListenError
from prefork.master.activation import Activation
from prefork.master.holders import AddressBusy
from prefork.master.listeners import open_listeners
from prefork.master.unix_socket import SocketFile, bind_unix

HOLD = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(int(sys.argv[2]))
print("listening", flush=True)
sys.stdin.read()
"""


def bind(
    path: Path, mode: int | None = None, owner: str | None = None, group: str | None = None
) -> SocketFile:
    sock, file = bind_unix(str(path), 16, mode=mode, owner=owner, group=group)
    sock.close()
    return file


@pytest.mark.parametrize(("mode", "expected"), [(None, 0o660), (0o600, 0o600), (0o666, 0o666)])
def test_mode_is_exact_whatever_the_umask(tmp_path: Path, mode: int | None, expected: int) -> None:
    before = os.umask(0o027)
    try:
        bind(tmp_path / "x.sock", mode)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.lstat(tmp_path / "x.sock").st_mode) == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the socket to another user")
def test_owner_and_group(tmp_path: Path) -> None:
    bind(tmp_path / "x.sock", owner="nobody", group="12345")
    made = os.lstat(tmp_path / "x.sock")
    assert (made.st_uid, made.st_gid) == (65534, 12345)


def test_unknown_owner_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="there is no user 'nobody-of-this-name'"):
        bind(tmp_path / "x.sock", owner="nobody-of-this-name")
    assert not (tmp_path / "x.sock").exists()


def test_stale_file_is_replaced(tmp_path: Path) -> None:
    first = bind(tmp_path / "x.sock")
    second = bind(tmp_path / "x.sock")
    assert second.path == first.path
    assert stat.S_ISSOCK(os.lstat(second.path).st_mode)


@pytest.mark.parametrize("backlog", [5, 0], ids=["idle", "full"])
def test_live_socket_is_refused_naming_who_listens(tmp_path: Path, backlog: int) -> None:
    path = tmp_path / "x.sock"
    with (
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path), str(backlog)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other,
        socket.socket(socket.AF_UNIX) as client,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == "listening\n"
        if backlog == 0:
            client.connect(str(path))  # a backlog of 0 holds one connection
        with pytest.raises(ListenError, match=rf"already in use by pid {other.pid} \(.*python") as error:
            bind(path)
        other.communicate()
    assert not isinstance(error.value, AddressBusy)
    assert path.exists()


def test_file_of_a_successor_is_not_unlinked(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    sock, ours = bind_unix(str(path), 16, mode=None, owner=None, group=None)
    with sock:
        path.unlink()
        theirs = bind(path)
        ours.unlink()
        assert path.exists()
        theirs.unlink()
        assert not path.exists()


def test_path_too_long(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="has 120 bytes, the system allows 107"):
        bind(Path("/" + "x" * 119))


def test_only_one_of_two_starting_servers_touches_the_directory(tmp_path: Path) -> None:

    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        with pytest.raises(AddressBusy, match="another server is just starting"):
            bind(tmp_path / "x.sock")
    finally:
        os.close(directory)


def test_a_reload_changes_the_mode_of_an_open_socket(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    (listener,) = open_listeners(Listen(address=f"unix:{path}"), Activation())
    listener.adjust(Listen(address=f"unix:{path}", mode=0o600))
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    path.unlink()
    path.touch(mode=0o640)
    listener.adjust(Listen(address=f"unix:{path}", mode=0o666))
    assert stat.S_IMODE(path.lstat().st_mode) == 0o640
    listener.close(unlink=True)
    assert path.exists()
