"""Listeners against the real kernel: what is opened, what is refused and in which words."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork.config import Listen
from prefork.errors import ExitStatus, ListenError
from prefork.listen_queue import queue_of, queues
from prefork.master.activation import Activation
from prefork.master.holders import AddressBusy, Holder, in_use, tcp_holders
from prefork.master.listeners import Listener, backlog_warnings, diff, open_at_start, open_listeners
from prefork.master.tcp_socket import _first_unprivileged_port

NOTHING = Activation()

ORPHAN = """
import sys
from setproctitle import setproctitle
from prefork.config import Listen
from prefork.master.activation import Activation
from prefork.master.listeners import open_listeners
(listener,) = open_listeners(Listen(address=sys.argv[1]), Activation())
setproctitle("prefork: worker shop.0 gen 3")
print(listener.address, flush=True)
sys.stdin.read()
"""


class Opener:
    """Opens listeners and closes them when the test is over."""

    def __init__(self) -> None:
        self.opened: list[Listener] = []

    def __call__(self, address: str, *, siblings: tuple[str, ...] = (), **keys: object) -> Listener:
        entry = listen(address, **keys)
        found = open_listeners(entry, NOTHING, [listen(other) for other in siblings])
        self.opened += found
        return found[0]


class Journal:
    """Stands for the log; calls ``on_line`` after each line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.on_line: Callable[[], object] = lambda: None

    def warning(self, event: str, message: str) -> None:
        self.lines.append(f"{event}: {message}")
        self.on_line()


def listen(address: str, **keys: object) -> Listen:
    return Listen(**{"address": address, "mode": None, "owner": None, "group": None, "backlog": 64, **keys})  # type: ignore[arg-type]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture
def open_one() -> Iterator[Opener]:
    opener = Opener()
    yield opener
    for listener in opener.opened:
        listener.close(unlink=True)


def port_of(listener: Listener) -> int:
    return int(listener.sock.getsockname()[1])


def connect(family: int, address: object) -> socket.socket:
    sock = socket.socket(family)
    sock.settimeout(10)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def test_tcp_listener_is_nonblocking_and_tells_its_real_address(open_one: Opener) -> None:
    listener = open_one("127.0.0.1:0")
    assert listener.key == "127.0.0.1:0"
    assert listener.address == f"127.0.0.1:{port_of(listener)}"
    assert listener.sock.getblocking() is False
    assert not os.get_inheritable(listener.fileno())
    with connect(socket.AF_INET, ("127.0.0.1", port_of(listener))):
        accepted, _ = listener.sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(not has_ipv6(), reason="needs the address ::1, which this system does not have")
def test_v6_wildcard_takes_both_families_unless_v4_has_its_own_entry(open_one: Opener) -> None:
    both = open_one("[::]:0")
    connect(socket.AF_INET, ("127.0.0.1", port_of(both))).close()
    connect(socket.AF_INET6, ("::1", port_of(both))).close()
    v4 = open_one("0.0.0.0:0")
    port = port_of(v4)
    v6 = open_one(f"[::]:{port}", siblings=(f"0.0.0.0:{port}",))
    assert v6.address == f"[::]:{port}"


def test_host_name_listens_on_each_of_its_addresses() -> None:
    found = open_listeners(listen("localhost:0"), NOTHING)
    try:
        assert {listener.key for listener in found} == {"localhost:0"}
        assert "127.0.0.1" in {listener.sock.getsockname()[0] for listener in found}
    finally:
        for listener in found:
            listener.close(unlink=True)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("192.0.2.1:0", "no interface of this machine has the address 192.0.2.1"),
        ("no-such-host.invalid:8000", "the host name 'no-such-host.invalid' has no address"),
        ("unix:/no/such/folder/x.sock", "the directory /no/such/folder does not exist"),
        ("unix:/etc/passwd", "the file exists and is not a socket"),
        ("fd:57", "started without an open descriptor 57"),
        ("systemd", "LISTEN_FDS is not set"),
    ],
)
def test_each_failure_is_one_line_with_exit_status_4(address: str, words: str) -> None:
    with pytest.raises(ListenError) as error:
        open_listeners(listen(address), NOTHING)
    assert str(error.value).startswith(f"cannot listen on {address}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.status is ExitStatus.LISTEN


@pytest.mark.skipif(
    os.geteuid() != 0 or _first_unprivileged_port() <= 81,
    reason="needs root, to become a user without rights, and a system where port 81 takes rights",
)
def test_privileged_port_says_what_to_do() -> None:
    code = (
        "import os; os.setgid(65534); os.setuid(65534)\n"
        "from prefork.master.tcp_socket import bind_tcp\n"
        "from prefork.config.address import TcpAddress\n"
        "try: bind_tcp(TcpAddress('127.0.0.1', 81), 5, v6only=False)\n"
        "except Exception as error: print(error)\n"
    )
    code = "import prefork.master.tcp_socket, encodings.idna\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ports below 1024 need root" in done.stdout, done


def test_address_in_use_names_the_process_and_is_final(open_one: Opener) -> None:
    first = open_one("127.0.0.1:0")
    with pytest.raises(ListenError, match="already in use by this server itself") as error:
        open_one(first.address)
    assert not isinstance(error.value, AddressBusy)
    assert [holder.pid for holder in tcp_holders("0.0.0.0", port_of(first))] == [os.getpid()]
    assert [holder.pid for holder in tcp_holders("127.0.0.2", port_of(first))] == []


def test_only_orphans_and_unknown_holders_are_worth_another_attempt() -> None:
    worker, master = Holder(7, "prefork: worker shop.0 gen 3"), Holder(8, "prefork: master shop (app.yaml)")
    assert isinstance(in_use("x:1", [worker], ""), AddressBusy)
    assert isinstance(in_use("x:1", [], "ask ss"), AddressBusy)
    assert not isinstance(in_use("x:1", [worker, master], ""), AddressBusy)
    assert "pid 8 (prefork: master shop (app.yaml))" in str(in_use("x:1", [worker, master], ""))


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_start_waits_for_an_orphan_and_says_so_once(tmp_path: Path, kind: str) -> None:
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/x.sock"
    argv = [sys.executable, "-c", ORPHAN, address]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as orphan:
        assert orphan.stdout is not None
        held = listen(orphan.stdout.readline().strip())
        journal = Journal()
        gc.collect()  # what other tests have left behind would free descriptors meanwhile
        before = os.listdir("/proc/self/fd")
        with pytest.raises(AddressBusy):
            open_at_start([listen("127.0.0.1:0"), held], NOTHING, journal, patience_s=0)  # type: ignore[arg-type]
        assert journal.lines == []
        assert len(os.listdir("/proc/self/fd")) == len(before)

        # The orphan leaves when it has been told of.
        journal.on_line = orphan.communicate
        (opened,) = open_at_start([held], NOTHING, journal, patience_s=60)  # type: ignore[arg-type]
        opened.close(unlink=True)
    (line,) = journal.lines
    assert f"still in use by pid {orphan.pid} (prefork: worker shop.0 gen 3), left behind by a master" in line
    assert "trying again for up to 60 s" in line


def test_diff_keeps_adds_and_removes_by_address(open_one: Opener, tmp_path: Path) -> None:
    kept, gone = open_one("127.0.0.1:0"), open_one(f"unix:{tmp_path}/gone.sock")
    relative = os.path.relpath(tmp_path / "new.sock")
    result = diff([kept, gone], [listen("127.0.0.1:0", backlog=9), listen(f"unix:{relative}")])
    assert result.keep == [kept]
    assert [entry.address for entry in result.add] == [f"unix:{relative}"]
    assert result.remove == [gone]
    kept.adjust(listen("127.0.0.1:0", backlog=9))
    assert queue_of(kept.sock) == (0, 9)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_queue_depth_counts_connections_not_yet_accepted(open_one: Opener, tmp_path: Path, kind: str) -> None:
    listener = open_one("127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/x.sock", backlog=7)
    clients = [connect(listener.family, listener.sock.getsockname()) for _ in range(3)]
    inode = os.fstat(listener.fileno()).st_ino
    try:
        assert queue_of(listener.sock) == (3, 7)
        # The same without its descriptor; what does not exist, or not there, has none.
        others = [(listener.family, 1), (socket.AF_INET6, inode), (99, inode)]
        assert queues([(listener.family, inode), *others]) == {inode: (3, 7)}
    finally:
        for client in clients:
            client.close()


def test_backlog_above_the_systems_limit_is_told(open_one: Opener) -> None:
    listener = open_one("127.0.0.1:0", backlog=2048)
    assert backlog_warnings([listener], somaxconn=4096) == []
    (line,) = backlog_warnings([listener], somaxconn=128)
    assert "backlog of 2048 is cut to 128" in line
