"""The logs of the running server: what lines say, where they go, and that no destination stops serving."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import HELLO, PATIENCE_S, Server, exchange, running, wait_for

import prefork

GET = b"GET %b HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"

APP = """
import os, sys, threading, time

print("printed in import")

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/print":
        print("printed in a request")
        thread = threading.Thread(target=print, args=("printed in a thread",))
        thread.start()
        thread.join()
    elif path.startswith("/raise"):
        raise ValueError(path, "long" * 5000)
    elif path == "/abort":
        os.abort()
    elif path == "/meet":  # until the other worker is here, too
        open(f"here.{os.getpid()}", "w").close()
        while sum(name.startswith("here.") for name in os.listdir()) < 2:
            time.sleep(0.01)
    status = path[1:] if path[1:].isdigit() else "200"
    start_response(status + " Fine", [("X-Answer", "42")])
    return [b"hello"]
"""


def access_lines(server: Server, count: int, name: str = "access.log") -> list[str]:
    """Return the lines of the access log once there are so many."""

    def lines() -> list[str]:
        path = server.folder / name
        found = path.read_text().splitlines() if path.exists() else []
        return found if len(found) >= count else []

    return wait_for(lines, f"{count} lines in {name}")


def get(server: Server, target: bytes) -> bytes:
    return server.exchange(GET % target)


# What lines say


def test_text_says_who_and_startup_says_what(server: Server) -> None:
    server.serve("app: myapp:app\nname: shop\nlisten: 127.0.0.1:0", APP, env={"WEB_CONCURRENCY": "2"})
    get(server, b"/raise")
    assert server.stop() == 0
    time, level = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "info|warning|error"
    who = r"(?:master pid \d+|shop\.[01] gen 1 pid \d+|shop mold gen 1(?: pid \d+)?)"
    event = re.compile(rf"{time} (?:{level}) +{who}: ")
    access = re.compile(r'127\.0\.0\.1 - - \[.*\] "GET /raise HTTP/1\.1" 500 26 "-" "-"')
    strange = [
        line
        for line in server.log.splitlines()
        if not (event.match(line) or access.fullmatch(line) or line.startswith("    "))
    ]
    assert strange == ["printed in import"], strange
    assert f"prefork {prefork.__version__} starts shop, configured by app.yaml" in server.log
    address = rf"127\.0\.0\.1:{server.port}"
    assert re.search(
        rf"shop gen 1: myapp:app on {address}; workers: auto = 2 \(WEB_CONCURRENCY\)", server.log
    )
    assert re.search(
        r"shop\.[01] gen 1 pid \d+: the application raised ValueError: GET /raise, id [0-9a-f-]+\n",
        server.log,
    )


@pytest.mark.measured
def test_json_says_all_of_it_on_each_line(server: Server) -> None:
    server.serve(
        """
        app: myapp:app
        name: shop
        listen: 127.0.0.1:0
        workers: 1
        log:
          format: json
          capture_output: true
          redact_query: [token]
          fields: {dc: fra}
          rename: {time: "@timestamp"}
        """,
        APP,
    )
    get(server, b"/print?token=SECRET&a=1")
    get(server, b"/raise?token=SECRET")
    server.exchange(b"GET /?token=SECRET HTTP/4.2\r\n\r\n")
    assert get(server, b"/abort") == b""
    server.wait_for_log("killed by SIGABRT")
    assert server.stop() == 0
    events: list[dict[str, Any]] = [json.loads(line) for line in server.log.splitlines()]
    assert all(event["@timestamp"] and event["dc"] == "fra" and event["pid"] for event in events)
    by_name = {event["event"]: event for event in events}
    starting, pool = by_name["starting"], by_name["pool-starting"]
    assert (starting["version"], starting["config"]) == (prefork.__version__, ["app.yaml"])
    assert (pool["workers"], pool["listeners"]) == (1, [f"127.0.0.1:{server.port}"])
    printed = {event["message"]: event.get("slot") for event in events if event["event"] == "stdout"}
    assert printed == {
        "printed in import": None,
        "printed in a request": "shop.0",
        "printed in a thread": "shop.0",
    }
    assert by_name["request-failed"]["slot"] == "shop.0"
    (aborted,) = (event for event in events if event.get("signal") == "SIGABRT")
    assert re.search(r'myapp.py", line \d+ in app', aborted["traceback"])
    requests = [event for event in events if event["event"] == "access"]
    assert [(event["status"], event["path"], event["query"]) for event in requests] == [
        (200, "/print", "token=***&a=1"),
        (500, "/raise", "token=***"),
        (505, "/", "token=***"),
    ]
    assert {(event["slot"], event["generation"]) for event in requests} == {("shop.0", 1)}
    assert "SECRET" not in server.log


def test_no_request_can_forge_a_line(server: Server) -> None:
    server.serve("app: myapp:app\nlisten: 127.0.0.1:0\nworkers: 1\nlog: {access: ./access.log}", APP)
    forged = "2026-11-24T11:02:03.123Z critical master pid 1: owned"
    in_path = forged.replace(" ", "%20")
    get(server, b"/raise%0a" + in_path.encode())
    server.exchange(GET[:-2] % b"/" + f'User-Agent: "\t\xe9" {forged}\r\n\r\n'.encode("latin-1"))
    server.exchange(b"GET /\n" + forged.encode() + b" HTTP/1.1\r\n\r\n")
    assert server.stop() == 0
    assert "owned" in server.log
    assert not [line for line in server.log.splitlines() if line.startswith(forged)]
    raised, agent, refused = access_lines(server, 3)
    assert f'"GET /raise%0a{in_path} HTTP/1.1" 500 ' in raised
    assert agent.endswith(rf'"-" "\"\t\xe9\" {forged}"')
    assert re.search(r' "GET /" 400 \d+ "-" "-"$', refused)


def test_what_is_printed_is_not_kept_back(server: Server) -> None:
    app = "app: myapp:app\nlisten: 127.0.0.1:0\nworkers: 1"
    server.serve(app, APP, env={"PYTHONUNBUFFERED": ""})
    get(server, b"/print")
    server.wait_for_log("printed in a request\nprinted in a thread\n")
    assert server.stop() == 0
    assert server.log.count("printed in import") == 1


# The access log


def test_access_format_and_errors_only(server: Server) -> None:
    server.serve(
        """
        app: myapp:app
        listen: 127.0.0.1:0
        workers: 1
        log:
          access: ./access.log
          access_format: "%m %U%% %>s %{x-id}i %({x-answer}o)s %({REQUEST_METHOD}e)s"
          access_when: errors
          access_skip: [/static, "*.png"]
        """,
        APP,
    )
    for target in (b"/", b"/404", b"/static/404", b"/500.png", b"/503"):
        server.exchange(b"GET %b HTTP/1.1\r\nHost: t\r\nX-Id: 7\r\nConnection: close\r\n\r\n" % target)
    assert server.stop() == 0
    assert access_lines(server, 2) == ["GET /404% 404 7 42 GET", "GET /503% 503 7 42 GET"]


def test_slow_requests_only_and_the_slowness_of_each_pool(server: Server) -> None:
    slow = "import time\ndef app(environ, start_response):\n    time.sleep(0.1)\n"
    server.serve(
        """
        log: {access: ./access.log, access_when: slow, access_format: common}
        workers: 1
        pools:
          quick: {app: "myapp:app", listen: "127.0.0.1:0", timeouts: {slow: 50ms}}
          lazy: {app: "myapp:app", listen: "unix:lazy.sock", timeouts: {slow: 30s}}
        """,
        slow + "    start_response('200 OK', [])\n    return [b'slow']\n",
    )
    with socket.socket(socket.AF_UNIX) as lazy:
        lazy.connect(str(server.folder / "lazy.sock"))
        assert exchange(lazy, GET % b"/lazy").endswith(b"slow")
    get(server, b"/quick")
    assert server.stop() == 0
    (line,) = access_lines(server, 1)
    assert re.fullmatch(r'127\.0\.0\.1 - - \[.*\] "GET /quick HTTP/1\.1" 200 4', line)


def test_refused_requests_have_an_access_line(server: Server) -> None:
    server.serve(
        """
        app: myapp:app
        listen: 127.0.0.1:0
        workers: 1
        timeouts: {head: 100ms, body: 100ms}
        limits: {request_line: 256, head: 512, body: 1000}
        log: {access: ./access.log, access_format: json}
        """,
        APP,
    )
    post = b"POST /upload HTTP/1.1\r\nHost: t\r\n"
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
    refused = [
        (b"GET /host HTTP/1.1\r\n\r\n", 400, "GET", "/host", "HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, None, None, None),
        (b"GET /half HTTP/1.1\r\nHost:", 408, "GET", "/half", "HTTP/1.1"),
        (post + b"Content-Length: 9\r\n\r\nhalf", 408, "POST", "/upload", "HTTP/1.1"),
        (post + b"Content-Length: 1001\r\n\r\n", 413, "POST", "/upload", "HTTP/1.1"),
        (chunked + b"5000\r\n", 413, "POST", "/upload", "HTTP/1.1"),
        (chunked + b"nonsense\r\n", 400, "POST", "/upload", "HTTP/1.1"),
        (b"GET /" + b"x" * 300, 414, "GET", "/" + "x" * 300, None),
        (b"GET /big HTTP/1.1\r\nA: " + b"x" * 512, 431, "GET", "/big", "HTTP/1.1"),
        (post + b"Expect: tea\r\nContent-Length: 1\r\n\r\n", 417, "POST", "/upload", "HTTP/1.1"),
        (b"GET /old HTTP/0.9\r\n\r\n", 505, "GET", "/old", "HTTP/0.9"),
    ]
    for request, status, *_ in refused:
        assert server.exchange(request).startswith(b"HTTP/1.1 %d " % status)
    entries = [json.loads(line) for line in access_lines(server, len(refused))]
    seen = [(e["status"], e["method"], e["path"], e["protocol"]) for e in entries]
    assert seen == [tuple(case[1:]) for case in refused]
    assert all(entry["sent_bytes"] > 0 and entry["remote_addr"] == "127.0.0.1" for entry in entries)


# Rotation


def test_usr1_moves_all_processes_to_new_files(server: Server) -> None:
    server.serve(
        "app: myapp:app\nlisten: 127.0.0.1:0\nworkers: 2\nlog: {to: ./server.log, access: ./access.log}", APP
    )
    port = server.port
    get(server, b"/before")
    access_lines(server, 1)
    for name in ("server.log", "access.log"):
        (server.folder / name).rename(server.folder / f"{name}.1")
    server.send_signal(signal.SIGUSR1)
    wait_for(server.log_path.exists, "the new file")
    server.wait_for_log("reopened 2 log files")

    workers = server.workers()
    address = ("127.0.0.1", port)
    with socket.create_connection(address) as first:
        first.sendall(GET % b"/meet")
        wait_for(lambda: list(server.folder.glob("here.*")), "the first worker")
        with socket.create_connection(address) as second:
            assert exchange(second, GET % b"/meet").endswith(b"hello")
        assert exchange(first, b"").endswith(b"hello")
    assert len(access_lines(server, 2)) == 2
    old = {name: (server.folder / f"{name}.1").read_bytes() for name in ("server.log", "access.log")}
    assert old["access.log"].count(b"\n") == 1

    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: len(set(server.workers()) - set(workers)) == 2, "new workers")
    with socket.create_connection(("127.0.0.1", port)) as sock:
        assert exchange(sock, GET % b"/raise").startswith(b"HTTP/1.1 500")
    assert server.stop() == 0
    assert len(access_lines(server, 3)) == 3
    for told in ("SIGKILL", "ValueError: GET /raise", "stopped with exit status 0"):
        assert told in server.log
    assert old == {name: (server.folder / f"{name}.1").read_bytes() for name in old}


def test_usr1_that_cannot_open_a_file_is_told_and_the_old_one_written_on(server: Server) -> None:
    (server.folder / "logs").mkdir()
    server.serve("app: myapp:app\nlisten: 127.0.0.1:0\nworkers: 1\nlog: {access: logs/access}", APP)
    (server.folder / "logs").rename(server.folder / "gone")
    server.send_signal(signal.SIGUSR1)
    server.wait_for_log("reopened 0 log files")
    path = server.folder / "logs" / "access"
    assert f"master pid {server.pid}: cannot reopen {path}, the old file is written on: No such" in server.log
    get(server, b"/")
    assert len(access_lines(server, 1, "gone/access")) == 1
    assert server.stop() == 0


@pytest.fixture
def public_server() -> Iterator[Server]:
    """A server in a folder that every user may enter; pytest's are for one user only."""
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as made:
        made.folder.chmod(0o755)
        yield made


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose privileges the server drops")
def test_the_master_opens_files_that_a_dropped_user_cannot(public_server: Server) -> None:
    server = public_server
    logs = server.folder / "logs"
    logs.mkdir(mode=0o700)
    server.log_path = logs / "events"
    server.serve(
        """
        app: myapp:app
        listen: 127.0.0.1:0
        workers: 1
        user: nobody
        log: {to: logs/events, access: logs/access}
        """,
    )
    (worker,) = server.workers()
    assert os.stat(f"/proc/{worker}").st_uid == pwd.getpwnam("nobody").pw_uid
    port = server.port
    logs.joinpath("access").rename(logs / "access.1")
    server.send_signal(signal.SIGUSR1)
    server.wait_for_log("reopened 2 log files")
    with socket.create_connection(("127.0.0.1", port)) as sock:
        assert exchange(sock, GET % b"/").endswith(b"hello")
    assert len(access_lines(server, 1, "logs/access")) == 1
    assert server.stop() == 0


# Destinations that fail


@pytest.mark.measured
def test_closed_standard_streams_are_no_reason_to_fail(server: Server) -> None:
    with listening() as listener:
        server.configure(f"app: myapp:app\nlisten: fd:{listener.fileno()}\nworkers: 1", HELLO)
        closing = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
        server.start(prefix=closing, pass_fds=(listener.fileno(),))
        with socket.create_connection(listener.getsockname()) as sock:
            assert exchange(sock, GET % b"/").endswith(b"hello")
        for pid in (server.pid, *server.workers()):
            assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {os.devnull}
        assert server.stop() == 0


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A listener of the test's, for a server whose log cannot tell its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        yield sock


def keep_asking(address: Any, count: int) -> None:
    """Make requests one after the other on one connection."""
    with socket.create_connection(address, PATIENCE_S) as sock:
        file = sock.makefile("rb")
        for _ in range(count):
            sock.sendall(b"GET /%b HTTP/1.1\r\nHost: t\r\n\r\n" % (b"x" * 200))
            assert file.readline() == b"HTTP/1.1 200 Fine\r\n"
            while file.readline() != b"\r\n":
                pass
            assert file.read(5) == b"hello"


def start_on(server: Server, listener: socket.socket, log: str, output: int | None = None) -> None:
    server.configure(f"app: myapp:app\nlisten: fd:{listener.fileno()}\nworkers: 1\nlog: {log}", APP)
    server.start(output=output, pass_fds=(listener.fileno(),))


def test_a_full_disk_does_not_stop_serving(server: Server) -> None:
    with listening() as listener:
        start_on(server, listener, "{to: /dev/full, access: /dev/full}")
        keep_asking(listener.getsockname(), 3000)
        server.send_signal(signal.SIGUSR1)
        keep_asking(listener.getsockname(), 100)
        assert server.stop() == 0


def test_a_closed_pipe_does_not_stop_serving(server: Server) -> None:
    reader, writer = os.pipe()
    with listening() as listener:
        start_on(server, listener, "{capture_output: true}", output=writer)
        os.close(writer)
        keep_asking(listener.getsockname(), 1)
        os.close(reader)
        keep_asking(listener.getsockname(), 3000)
        with socket.create_connection(listener.getsockname()) as sock:
            assert exchange(sock, GET % b"/print").endswith(b"hello")
        assert server.stop() == 0


def test_a_stalled_reader_loses_lines_and_is_told_afterwards(server: Server) -> None:
    reader, writer = os.pipe()
    with listening() as listener:
        start_on(server, listener, "{to: ./server.log}", output=writer)
        os.close(writer)
        keep_asking(listener.getsockname(), 3000)  # more than pipe and buffer hold
        os.set_blocking(reader, False)
        received = bytearray()

        def lost() -> int:
            try:
                received.extend(os.read(reader, 1 << 20))
            except BlockingIOError:
                pass
            keep_asking(listener.getsockname(), 1)
            found = re.search(r"(\d+) lines of the access log dropped", server.log)
            return int(found[1]) if found else 0

        dropped = wait_for(lost, "the number of dropped lines")
        server.wait_for_log("serving on ")
        assert server.stop() == 0
        while data := os.read(reader, 1 << 20):
            received.extend(data)
    os.close(reader)
    lines = bytes(received).decode().splitlines()
    assert lines.pop(0) == "printed in import"
    assert all(
        re.fullmatch(r'127\.0\.0\.1 - - \[.*\] "GET /x{200} HTTP/1\.1" 200 5 "-" "-"', s) for s in lines
    )
    after = len(lines) + dropped - 3000
    assert 1 <= after < 3000  # those that were asked for while waiting


def test_a_fifo_is_written_again_when_its_reader_is_back(server: Server) -> None:
    fifo = server.folder / "events.fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with listening() as listener:
        start_on(server, listener, "{to: ./events.fifo, access: off}")
        keep_asking(listener.getsockname(), 1)
        os.close(reader)
        address = listener.getsockname()
        for _ in range(40):  # 32 KiB of traceback each
            with socket.create_connection(address) as sock:
                assert exchange(sock, GET % b"/raise").startswith(b"HTTP/1.1 500")
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        received = bytearray()

        def told() -> bool:
            with socket.create_connection(address) as sock:
                exchange(sock, GET % b"/raise")
            try:
                received.extend(os.read(reader, 1 << 20))
            except BlockingIOError:
                pass
            return b"lines of the log dropped" in received

        wait_for(told, "the number of dropped lines")
        assert server.stop() == 0
    os.close(reader)


@pytest.mark.measured
def test_syslog_gets_the_events_of_master_and_workers_and_the_access_log(server: Server) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(server.folder / "syslog"))
        daemon.settimeout(30)
        where = f"syslog:{server.folder}/syslog"
        server.configure(
            f"app: myapp\nlisten: 127.0.0.1:0\nworkers: 1\nlog: {{to: '{where}', access: '{where}'}}\n"
        )
        server.start()
        messages: list[str] = []

        def wait_for_message(pattern: str) -> re.Match[str]:
            while True:
                messages.append(daemon.recv(1 << 16).decode())
                if found := re.search(pattern, messages[-1]):
                    return found

        port = int(wait_for_message(r"<30>.* prefork\[\d+\]: master .*serving on 127\.0\.0\.1:(\d+)")[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(GET % b"/seen")
            assert b" 200 " in client.recv(1 << 16)
        wait_for_message(r'<30>.* prefork\[\d+\]: 127\.0\.0\.1 .*"GET /seen HTTP/1\.1" 200 ')
        assert server.stop() == 0
        assert any("ready after" in message for message in messages)


@pytest.mark.measured
@pytest.mark.parametrize("more", ["", "log: {access: off}\n"])
def test_statsd_gets_each_request(server: Server, more: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(30)
        port = daemon.getsockname()[1]
        server.serve(
            f"app: myapp\nlisten: 127.0.0.1:0\nworkers: 2\nstatsd: {{address: '127.0.0.1:{port}'}}\n{more}",
            APP,
        )
        for status in (200, 200, 404):
            assert server.get(f"/{status}")[0] == status
        assert server.get("/raise")[0] == 500
        server.exchange(b"GET / HTTP/1.1\r\n\r\n")  # refused: no Host
        figures: list[str] = []
        while sum(line.startswith("gunicorn.requests:1|c") for line in figures) < 5:
            figures += daemon.recv(1 << 16).decode().splitlines()
        assert "gunicorn.workers:2|g" in figures
        for status, count in ((200, 2), (404, 1), (500, 1), (400, 1)):
            assert figures.count(f"gunicorn.request.status.{status}:1|c") == count
        assert "gunicorn.log.exception:1|c" in figures
        assert server.stop() == 0
