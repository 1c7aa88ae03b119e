"""``python -m bench.memory``: the memory of four workers and all that serves them, for prefork and others.

What counts is the proportional set size (PSS) of all processes of a server: a page that n of them share counts 1/n in
each. Takes about six minutes and writes a table into docs/memory.md.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.measure import running
from bench.report import fill, machine
from bench.servers import HOME, ROOT, Server, install, pip

PAGE = ROOT / "docs" / "memory.md"
WORKERS = 4
LARGE, SMALL = "bench.memory_app:application", "bench.pid_app:application"
REQUESTS = 1200
"""Of each worker at least."""
CLIENTS, PATIENCE_S = 8, 60.0

PREFORK = f"{{bin}}/prefork {{app}} -w {WORKERS} -b 127.0.0.1:{{port}} --set log.access=off"
GUNICORN = f"{{bin}}/gunicorn -w {WORKERS} -b 127.0.0.1:{{port}} {{app}}"
UWSGI = (
    f"{{bin}}/uwsgi --master --processes {WORKERS} --die-on-term --http-socket 127.0.0.1:{{port}} --module {{app}}"
    " --disable-logging --add-header 'Connection: close'"
)
CONFIGURED = (
    Server("prefork", "prefork", PREFORK),
    Server("prefork, preload: false", "prefork", f"{PREFORK} --set preload=false"),
    Server("gunicorn", "gunicorn", GUNICORN),
    Server("gunicorn --preload", "gunicorn", f"{GUNICORN} --preload"),
    Server("uWSGI", "uWSGI", UWSGI),
    Server("uWSGI --lazy-apps", "uWSGI", f"{UWSGI} --lazy-apps"),
    Server("granian", "granian", f"{{bin}}/granian --interface wsgi --http 1 --no-ws --workers {WORKERS}"
           " --blocking-threads 1 --host 127.0.0.1 --port {port} {app}"),
)  # fmt: skip


@dataclass(frozen=True)
class Footprint:
    """PSS of a server's processes in MiB, when its workers have served their requests."""

    all_mib: float
    without_workers_mib: float


def main() -> int:
    """Measure and write the page, unless only some are asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description="Compare memory.")
    parser.add_argument("--rounds", type=int, default=3, help="alternating runs of each (default 3)")
    parser.add_argument("--only", nargs="+", metavar="SERVER", help="these alone, and do not write the page")
    options = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    servers = [server for server in CONFIGURED if not options.only or server.name in options.only]
    versions = install(servers)
    pip("django")
    found: dict[tuple[Server, str], list[Footprint]] = {}
    for _ in range(options.rounds):
        for server in servers:
            for app in (LARGE, SMALL):
                if server.package in versions:
                    found.setdefault((server, app), []).append(footprint(server, app))
                    print(server.name, app, found[server, app][-1], flush=True)
    if not options.only:
        fill(PAGE, "bench.memory", "\n".join(tables(found, versions)) + "\n")
    return 0


def footprint(server: Server, app: str) -> Footprint:
    """Start a server with an application, have every worker serve, and weigh it."""
    command = server.command.replace("{app}", app)
    with running(Server(server.name, server.package, command), pinned=False) as (master, port):
        workers = serve(port)
        family = {pid: pss_mib(pid) for pid in [master, *descendants(master)]}
    return Footprint(sum(family.values()), sum(mib for pid, mib in family.items() if pid not in workers))


def serve(port: int) -> set[int]:
    """Send requests until each worker has served enough; return the workers."""
    served: Counter[int] = Counter()
    deadline = time.monotonic() + PATIENCE_S

    def is_done() -> bool:
        return len(served) == WORKERS and min(served.values()) >= REQUESTS

    def ask() -> None:
        while not is_done() and time.monotonic() < deadline:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            connection.request("GET", "/")
            served[int(connection.getresponse().read().split()[0])] += 1
            connection.close()

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    if not is_done():
        raise RuntimeError(f"not every worker has served {REQUESTS} requests: {served}")
    return set(served)


def descendants(pid: int) -> list[int]:
    """Return the pids of all descendants that live."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    except OSError:
        pass  # it has ended meanwhile
    return found


def pss_mib(pid: int) -> float:
    """Return the proportional set size of a process."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


def tables(found: dict[tuple[Server, str], list[Footprint]], versions: dict[str, str]) -> Iterator[str]:
    """Yield what goes into the page."""
    runs = max(len(footprints) for footprints in found.values())
    base = median(f.all_mib for (server, app), fs in found.items() for f in fs
                  if (server.name, app) == ("gunicorn", LARGE))  # fmt: skip
    yield f"Machine: {machine()}. {WORKERS} workers, medians of {runs} alternating runs."
    yield ""
    yield "| server | large application, MiB | in times of gunicorn | small application, MiB | not workers, MiB |"
    yield "|---|---:|---:|---:|---:|"
    for server in CONFIGURED:
        if (server, LARGE) in found:
            large = median(f.all_mib for f in found[server, LARGE])
            small = median(f.all_mib for f in found[server, SMALL])
            rest = median(f.without_workers_mib for f in found[server, SMALL])
            name = f"**{server.name}**" if server.name == "prefork" else server.name
            yield (
                f"| {name} {versions[server.package]} | {large:.0f} | {large / base:.2f} | {small:.0f} | {rest:.0f} |"
            )


if __name__ == "__main__":
    sys.exit(main())
