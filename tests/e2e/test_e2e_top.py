"""``prefork top`` and ``status --watch`` in a real terminal, which tmux keeps for us."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PATIENCE_S, Server, wait_for, works

CONFIG = """
app: myapp
name: shop
listen: 127.0.0.1:0
control: ./control.sock
workers: 2
timeouts: {slow: 300ms}
"""

APP = """
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [])
    return [b"hello"]
"""

TOP = (sys.executable, "-m", "prefork", "top", "--control", "./control.sock")


class Terminal:
    """A terminal of 80 columns in which one command runs."""

    def __init__(self, folder: Path, *command: str, env: dict[str, str] | None = None) -> None:
        self._socket = str(folder / "tmux.sock")
        variables = [f"{name}={value}" for name, value in {"LC_ALL": "C.UTF-8", **(env or {})}.items()]
        shell = f"cd {shlex.quote(str(folder))}; env {shlex.join([*variables, *command])}; echo ended with $?; sleep 60"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", shell)

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    def wait_for(self, *parts: str) -> str:
        """Return what is shown once it has all these parts."""

        def shown() -> str:
            text = self.text()
            return text if all(part in text for part in parts) else ""

        try:
            return wait_for(shown, f"{parts} in the terminal")
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows:\n{self.text()}") from None

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        return done.stdout


@pytest.fixture
def busy(server: Server) -> Iterator[Server]:
    """A server of which one worker runs a request until there is a file ``go``."""
    if not works("tmux", "-V"):
        pytest.skip("needs tmux")
    server.serve(CONFIG, APP)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /wait?secret=1 HTTP/1.1\r\nHost: t\r\n\r\n")
        yield server
        (server.folder / "go").touch()
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert server.stop() == 0


@pytest.mark.measured
def test_top_shows_steers_and_survives_a_resize(busy: Server) -> None:
    terminal = Terminal(busy.folder, *TOP)
    try:
        shown = terminal.wait_for("shop serving", "GET /wait", "busy", "idle", "s: sort")
        assert max(len(line) for line in shown.splitlines()) <= 80
        terminal.press("s")
        shown = terminal.wait_for("s: sort (request)")
        rows = [line for line in shown.splitlines() if line.startswith("shop.")]
        assert "busy" in rows[0]  # what takes longest is on top
        terminal.press("t")
        terminal.wait_for("runs GET /wait", "in app", "scroll")
        terminal.press("q")
        terminal.wait_for("REQUEST")
        terminal.resize(120, 40)
        terminal.wait_for("PID", "/wait?secret=1")
        terminal.press("/", "i", "d", "l", "e", "Enter")
        idle = next(
            line for line in terminal.wait_for("filter: idle").splitlines() if line.startswith("shop.")
        )
        slot, pid = idle.split()[:2]
        terminal.press("r")
        terminal.wait_for(f"recycle {slot}? y or n")
        terminal.press("y")
        busy.wait_for_log(rf"{slot} gen 1 pid {pid}: gone: ")
        terminal.wait_for("LAST DEATHS", f"{slot} pid {pid}")
        terminal.resize(80, 10)
        terminal.wait_for("shop serving", "s: sort")
        terminal.press("q")
        terminal.wait_for("ended with 0")
    finally:
        terminal.close()


@pytest.mark.measured
def test_top_without_rich_is_plain_and_tells_when_the_server_is_silent(busy: Server) -> None:
    busy.write("sitecustomize.py", "import sys\nsys.modules['rich'] = None\n")
    terminal = Terminal(busy.folder, *TOP, env={"PYTHONPATH": str(busy.folder)})
    try:
        terminal.wait_for("shop serving", "GET /wait")
        os.kill(busy.pid, signal.SIGSTOP)
        try:
            terminal.wait_for("no answer for", "shop.0")
        finally:
            os.kill(busy.pid, signal.SIGCONT)
        wait_for(lambda: "no answer" not in terminal.text(), "an answer")
        terminal.press("C-c")
        terminal.wait_for("ended with 0")
    finally:
        terminal.close()


@pytest.mark.measured
def test_who_is_no_terminal_gets_no_top_but_can_watch(busy: Server) -> None:
    control = ("--control", str(busy.folder / "control.sock"))
    command = (sys.executable, "-m", "prefork")
    top = subprocess.run(
        [*command, "top", *control], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (top.returncode, "top needs a terminal" in top.stderr) == (2, True)
    with subprocess.Popen(
        [*command, "status", "--watch", "--json", *control], stdout=subprocess.PIPE
    ) as watch:
        assert watch.stdout is not None
        looks = [json.loads(watch.stdout.readline()) for _ in range(2)]
        watch.send_signal(signal.SIGINT)
        assert watch.wait(PATIENCE_S) == 0
    assert looks[0]["uptime_s"] < looks[1]["uptime_s"]
