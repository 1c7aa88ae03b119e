"""``python -m bench.watching``: what it costs a real server of 100 workers to be looked at every second.

CPU time of the process that answers: the admin process for status and metrics, the master for the control socket.
``bench.status`` says what of that is the status itself. Takes three minutes.
"""

from __future__ import annotations

import argparse
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.memory import descendants
from bench.processes import title
from bench.readers import fetch
from bench.report import machine
from bench.servers import ROOT
from prefork.cli.remote.server import RemoteServer
from prefork.process import cpu_time_ns

WORKERS, REQUESTS, PATIENCE_S = 100, 2000, 120.0
CONFIG = f"""
app: bench.pid_app:application
listen: 127.0.0.1:0
workers: {WORKERS}
pythonpath: [{ROOT}]
admin: {{listen: "127.0.0.1:ADMIN"}}
control: ./ctl
log: {{to: ./server.log, access: off}}
"""


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.watching", description="What looking costs.")
    parser.add_argument("--seconds", type=int, default=30, help="how long each is looked at (default 30)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (folder / "app.yaml").write_text(CONFIG.replace("ADMIN", str(port)))
        master = subprocess.Popen([sys.executable, "-m", "prefork", "-c", "app.yaml"], cwd=folder)
        try:
            measure(master.pid, port, folder, options.seconds)
        finally:
            master.terminate()
            master.wait(PATIENCE_S)
    return 0


def measure(master: int, port: int, folder: Path, seconds: int) -> None:
    """Print a line for each way to look."""
    found = wait_for(lambda: re.search(r"serving on \S+:(\d+)", (folder / "server.log").read_text()))
    for _ in range(REQUESTS):
        fetch(int(found[1]), "/")
    [admin] = [pid for pid in descendants(master) if title(pid).startswith("prefork: admin")]
    server = RemoteServer(str(folder / "ctl"))
    looks: tuple[tuple[str, int, Callable[[], object]], ...] = (
        ("nobody looks: the admin process", admin, lambda: None),
        ("nobody looks: the master", master, lambda: None),
        ("`GET /status`: the admin process", admin, lambda: fetch(port, "/status")),
        ("`GET /status`: the master", master, lambda: fetch(port, "/status")),
        ("`GET /metrics`: the admin process", admin, lambda: fetch(port, "/metrics")),
        ("control socket: the master", master, server.status),
    )
    print(f"Machine: {machine()}. {WORKERS} workers, one look a second for {seconds} s.\n")
    print("| | CPU ms a look | of a core, % |\n|---|---:|---:|")
    for name, pid, look in looks:
        look()
        before_ns, began = cpu_time_ns(pid), time.monotonic()
        for _ in range(seconds):
            look()
            time.sleep(1.0)
        spent_ns, took_s = cpu_time_ns(pid) - before_ns, time.monotonic() - began
        print(f"| {name} | {spent_ns / 1e6 / seconds:.2f} | {spent_ns / 1e7 / took_s:.2f} |", flush=True)


def wait_for(condition: Callable[[], re.Match[str] | None]) -> re.Match[str]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = condition()
        except FileNotFoundError:
            found = None
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise RuntimeError("the server does not serve")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
