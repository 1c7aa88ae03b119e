"""Serve the example shop in the foreground and, once it serves, say what to try; ``make demo`` runs this."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFIG = "config/example.yaml"

HINTS = """
  The shop is open:  http://127.0.0.1:8000
  How it does:       http://127.0.0.1:9180

  In another terminal, try:
    curl -i http://127.0.0.1:8000/api/products        a JSON answer, and its line in the log here
    curl http://127.0.0.1:8000/slow?seconds=2         a slow page: the other workers serve on
    curl http://127.0.0.1:8000/boom                   a page that raises: the traceback is in the log
    {reload:<49} first put a mistake into {config}, say
    {status:<49} what every worker does
    kill -9 $(pgrep -f 'prefork: worker' | head -1)   a worker dies, and another takes its place

  Ctrl-C stops it.
"""


def main() -> int:
    """Run prefork until it ends and return its exit status."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notices:
        # As systemd does for a service. An empty name lets the kernel choose an abstract one.
        notices.bind("")
        environ = os.environ | {"NOTIFY_SOCKET": "@" + notices.getsockname()[1:].decode()}
        command = [sys.executable, "-m", "prefork", "-c", CONFIG, *sys.argv[1:]]
        server = subprocess.Popen(command, cwd=ROOT, env=environ)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: server.send_signal(number))
        wait_until_ready(notices, server)
        return server.wait()


def wait_until_ready(notices: socket.socket, server: subprocess.Popen[bytes]) -> None:
    """Print the hints when the server says READY=1; return then, or when it has ended."""
    gone = os.pidfd_open(server.pid)
    while notices.fileno() in select.select([notices.fileno(), gone], [], [])[0]:
        if "READY=1" in notices.recv(4096).decode().splitlines():
            prefork = f"{os.path.relpath(sys.executable)} -m prefork"
            commands = {name: f"{prefork} {name} -c {CONFIG}" for name in ("reload", "status")}
            print(HINTS.format(**commands, config=CONFIG), flush=True)
            break
    os.close(gone)


if __name__ == "__main__":
    sys.exit(main())
