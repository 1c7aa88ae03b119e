"""``/metrics``: what the server and the application have counted, against loads of known size."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness import PATIENCE_S, Server, is_alive, wait_for
from load import Load
from scraping import Samples, Scraper, scrape

SHOP = """
import os, signal, sys
from flask import Flask
from prometheus_client import Counter, Gauge, Histogram

app = Flask(__name__)
SALES = Counter("shop_sales", "Sales.", ["kind"])
TOOK = Histogram("shop_checkout_seconds", "Checkout.", buckets=[0.1, 1])
SELLERS = Gauge("shop_sellers", "Workers that sell.", multiprocess_mode="livesum")

@app.get("/")
def sell():
    SALES.labels("web").inc()
    TOOK.observe(0.5)
    SELLERS.set(1)
    return "sold"

@app.get("/die")
def die():
    sell()
    os.kill(os.getpid(), signal.SIGKILL)

@app.post("/")
def fail():
    raise RuntimeError("no sale")
"""

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 3
recycle: {requests: 40, jitter: 0%}
admin: {listen: "unix:admin.sock"}
"""


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)


def folder_of(pid: int) -> Path:
    """Return the folder of the application's own metrics, of which a process has mapped a file."""
    mapped = [Path(line.split()[-1]) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return next(path.parent for path in mapped if path.suffix == ".db")


def strangers(folder: Path) -> list[str]:
    """Return the files that are neither of a living process nor the merged ones."""
    names = [path.name for path in folder.iterdir()]
    owners = {name: name.removesuffix(".db").rpartition("_")[2] for name in names}
    return [name for name, owner in owners.items() if owner != "merged" and not is_alive(int(owner))]


def balance(found: Samples) -> tuple[float, float]:
    """Return how many workers there are, and how many there should be after all births and deaths."""

    def total(name: str) -> float:
        return sum(value for sample, value in found.items() if sample.startswith(f"{name}{{"))

    living = total("prefork_worker_spawns_total") - total("prefork_worker_deaths_total")
    return total("prefork_workers"), living


@pytest.mark.timeout(180)
def test_what_an_application_counts_is_exact_whatever_becomes_of_its_workers(server):
    """Several workers, recycling, kill -9, a reload and an upgrade, under load, and no line of glue."""
    server.serve(CONFIG, SHOP)
    folder = folder_of(server.molds()[0])
    with Scraper(server) as scraper, Load(lambda: connect(server), kept=2, fresh=2, pause_s=0.02) as load:

        def go_on() -> None:
            before = load.done
            wait_for(lambda: load.done >= before + 40, "more answers")

        server.wait_for_log("expected: it has served recycle.requests")
        for _ in range(2):
            assert server.exchange(b"GET /die HTTP/1.1\r\nHost: x\r\n\r\n") == b""
            go_on()
        server.configure(CONFIG.replace("recycle:", "# recycle:"), None)
        assert server.reload() == "reloaded"
        go_on()
        mark = server.mark()
        server.send_signal(signal.SIGUSR2)
        server.wait_for_log("generation 3 serves", mark)
        go_on()
    sold = load.done + 2
    assert len(load.failures) <= 8, load.failures  # those whose connection a killed worker had
    assert (scraper.failures, scraper.fell) == ([], [])
    assert scraper.scrapes > 5
    pool = 'pool="myapp"'
    answered = f'prefork_requests_total{{code="2xx",method="GET",{pool}}}'
    wait_for(lambda: scrape(server)[answered] == load.done, "the last answer to be counted")
    found = scrape(server)
    assert found[f'shop_sales_total{{kind="web",{pool}}}'] == sold
    assert found[f'shop_checkout_seconds_bucket{{le="0.1",{pool}}}'] == 0
    assert found[f'shop_checkout_seconds_bucket{{le="1.0",{pool}}}'] == sold
    assert found[f"shop_checkout_seconds_count{{{pool}}}"] == sold
    assert found[f"shop_checkout_seconds_sum{{{pool}}}"] == sold / 2
    wait_for(lambda: scrape(server)[f"shop_sellers{{{pool}}}"] <= 3, "gauges of workers that are gone to end")
    for reason in ("recycled-requests", "retired"):
        assert found[f'prefork_worker_deaths_total{{{pool},reason="{reason}"}}'] > 0
    wait_for(lambda: balance(scrape(server)) == (3, 3), "as many births as deaths and living workers")
    assert found['prefork_reloads_total{result="ok"}'] == 2  # an upgrade ends with one
    assert found["prefork_generation"] == 3
    assert found[f"prefork_application_metrics_skipped{{{pool}}}"] == 0
    wait_for(lambda: scrape(server) and not strangers(folder), "the files of dead workers to be merged")
    assert server.stop() == 0
    assert not folder.parent.exists()


COUNTER = """
import os, sys
from prometheus_client import Counter

SALES = Counter("shop_sales", "Sales.")

def app(environ, start_response):
    SALES.inc()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""

STANDARD_LIBRARY = """
import sys, prometheus_client

for name in [name for name in sys.modules if name.startswith("prometheus_client")]:
    del sys.modules[name]
"""
"""Imports, while it is root, what a Python that is root's own has not for others."""


def test_pools_of_several_users_are_read_by_the_admin_process_of_another(public_server):
    """Whatever the umask of a pool, and nobody else can read its files."""
    server = public_server
    server.write("sitecustomize.py", STANDARD_LIBRARY)
    server.serve(
        """
        user: games
        preload: false
        admin: {listen: {address: "unix:admin.sock", mode: "0666"}}
        pools:
          web: {app: "myapp:app", listen: "127.0.0.1:0", workers: 1, user: nobody, umask: "0077"}
          api: {app: "myapp:app", listen: "unix:api.sock", workers: 1, user: daemon}
        """,
        COUNTER,
        env={"PYTHONPATH": str(server.folder)},
    )
    web, api = (f'shop_sales_total{{pool="{pool}"}}' for pool in ("web", "api"))
    folder = folder_of(server.workers(r"web\.0")[0])
    about = folder.stat()
    assert (about.st_uid, about.st_mode & 0o777) == (pwd.getpwnam("nobody").pw_uid, 0o770)
    for sold in (1, 2):
        pid = int(server.get("/")[1])
        found = scrape(server)
        # A worker makes its file with the application, so what has sold nothing is there, too.
        assert (found[web], found[api], found['prefork_application_metrics_skipped{pool="web"}']) == (
            sold,
            0,
            0,
        )
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda gone=pid: not is_alive(gone) and server.workers(r"web\.0"), "a successor")
        wait_for(lambda: scrape(server) and not strangers(folder), "the files of dead workers to be merged")
    assert (folder / "counter_merged.db").stat().st_uid == pwd.getpwnam("games").pw_uid
    assert scrape(server)[web] == 2


def test_only_the_admin_process_knows_prometheus_client(server):
    """It costs the others neither memory nor start-up time, and their application may have another mind."""
    server.serve(
        CONFIG,
        """
        import os, sys

        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [f"{'prometheus_client' in sys.modules} {'PROMETHEUS_MULTIPROC_DIR' in os.environ}".encode()]
        """,
    )
    assert server.get() == (200, "False True")
    assert scrape(server)["prefork_ready"] == 1
    master = "import sys, prefork.cli.main; print('prometheus_client' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", master], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout == "False\n"
