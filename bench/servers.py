"""The servers that are compared: how each is installed, started with one worker, and told to log accesses."""

from __future__ import annotations

import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOME = ROOT / "var" / "bench"
PYTHON = HOME / "venv" / "bin" / "python"

APP = "bench.app:application"


@dataclass(frozen=True)
class Server:
    """``{bin}``, ``{home}`` and ``{port}`` are filled in.

    ``log`` is added when accesses are to be logged (None if they cannot be), ``no_log`` when they are not to be.
    """

    name: str
    package: str
    command: str
    log: str | None = None
    no_log: str = ""


FLOOR = "fixed-answer C loop"

SERVERS = (
    Server("prefork", "prefork", "{bin}/prefork " + APP + " -w 1 -b 127.0.0.1:{port}", "--set log.access=stdout",
           "--set log.access=off"),
    Server("granian", "granian", "{bin}/granian --interface wsgi --http 1 --no-ws --workers 1 --blocking-threads 1"
           " --host 127.0.0.1 --port {port} " + APP, "--access-log"),
    Server("bjoern", "bjoern", "{bin}/python -c 'import bjoern; from bench.app import application as a;"
           " bjoern.run(a, \"127.0.0.1\", {port})'"),
    Server("uWSGI", "uWSGI", "{bin}/uwsgi --master --processes 1 --die-on-term --http11-socket 127.0.0.1:{port}"
           " --module " + APP, "--logto /dev/null", "--disable-logging"),
    Server("waitress", "waitress", "{bin}/waitress-serve --listen=127.0.0.1:{port} " + APP),
    Server("gunicorn gthread", "gunicorn", "{bin}/gunicorn -k gthread --threads 4 -b 127.0.0.1:{port} " + APP,
           "--access-logfile -"),
    Server("gunicorn sync", "gunicorn", "{bin}/gunicorn -k sync -b 127.0.0.1:{port} " + APP, "--access-logfile -"),
    Server(FLOOR, "floor", "{home}/floor {port}"),
)  # fmt: skip


def install(servers: list[Server]) -> dict[str, str]:
    """Install what the servers need and return the version of each package; one that does not build is left out."""
    if not PYTHON.exists():
        venv.create(HOME / "venv", with_pip=True)
    pip("flask")
    versions = {}
    for package in dict.fromkeys(server.package for server in servers):
        print(f"installing {package}", flush=True)
        if package == "floor":
            compile_c("floor")
            versions[package] = ""
            continue
        wanted = ["-e", str(ROOT)] if package == "prefork" else [package]
        if not pip(*wanted):
            print(f"  {package} cannot be installed here, and is left out")
            continue
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        versions[package] = subprocess.check_output([PYTHON, "-c", code], text=True).strip()
    return versions


def pip(*wanted: str) -> bool:
    """Install into the servers' venv; return whether it worked."""
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    return subprocess.run(command, check=False, timeout=600, stderr=subprocess.DEVNULL).returncode == 0


def compile_c(name: str) -> Path:
    """Compile a program of this folder and return its path."""
    program = HOME / name
    subprocess.run(["cc", "-O2", "-o", program, Path(__file__).parent / f"{name}.c"], check=True)
    return program
