"""A real Prometheus scrapes a real prefork, with the files of deploy/, and knows what it was asked to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S, wait_for
from scraping import free_port

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "prefork.json"

APP = """
def app(environ, start_response):
    path = environ["PATH_INFO"]
    environ["wsgi.input"].read()
    status = {"/": "200 OK", "/gone": "404 Not Found", "/broken": "500 Internal Server Error"}[path]
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", "10")])
    return [b"0123456789"]
"""

QUIET = {
    "Requests by method", "Refused", "Deaths",  # "> 0", and there were none lately
    "Reloads",
}  # fmt: skip
"""Panels that may show nothing of a server that has just begun."""


class Prometheus:
    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            found = json.load(response)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[Any]:
        return self.get("query", query=expression)["result"]

    def value(self, expression: str) -> float | None:
        """Return the value of the only series of an expression."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run one with our config, but faster, and on a port of its own."""
    assert shutil.which("prometheus"), (
        "prometheus is missing: install Debian's package of this name (make apt)"
    )
    config = (DEPLOY / "prometheus.yml").read_text()
    config = re.sub(r"(_interval): \w+", r"\1: 200ms", config).replace("127.0.0.1:9180", target)
    (folder / "prometheus.yml").write_text(config)
    shutil.copy(DEPLOY / "prefork.rules.yml", folder)
    port = free_port()
    with open(folder / "prometheus.log", "wb") as log:
        process = subprocess.Popen(
            ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
             f"--web.listen-address=127.0.0.1:{port}"],
            cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        made = Prometheus(port)

        def is_up() -> bool:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            try:
                return made.value('up{job="prefork"}') == 1
            except OSError:
                return False

        wait_for(is_up, "a first scrape")
        yield made
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def panel_expressions() -> Iterator[tuple[str, str]]:
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in [*dashboard["panels"], *dashboard["annotations"]["list"]]:
        for target in panel.get("targets", [panel]):
            if expression := target.get("expr"):
                for name, value in {"$__rate_interval": "1m", "$instance": ".*", "$pool": ".*"}.items():
                    expression = expression.replace(name, value)
                yield panel.get("title") or panel["name"], expression


@pytest.mark.timeout(180)
def test_prometheus_knows_what_the_server_did(server, tmp_path):
    admin = f"127.0.0.1:{free_port()}"
    server.serve(f"app: myapp:app\nlisten: 127.0.0.1:0\nworkers: 2\nadmin: {{listen: '{admin}'}}\n", APP)
    with prometheus(tmp_path, admin) as watcher:
        for method, path, body, times in (
            ("GET", "/", b"", 7),
            ("GET", "/gone", b"", 2),
            ("POST", "/broken", b"x" * 1000, 3),
        ):
            for _ in range(times):
                head = (
                    f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}"
                )
                assert server.exchange(f"{head}\r\n\r\n".encode() + body).endswith(b"0123456789")
        assert server.exchange(b"BREW / HTTP/9\r\n\r\n").startswith(b"HTTP/1.1 400")
        wait_for(lambda: watcher.value("sum(prefork_requests_total)") == 12, "the last request to be scraped")
        pool = 'pool="myapp"'
        for expression, expected in {
            f'prefork_requests_total{{{pool},method="GET",code="2xx"}}': 7,
            f'prefork_requests_total{{{pool},method="GET",code="4xx"}}': 2,
            f'prefork_requests_total{{{pool},method="POST",code="5xx"}}': 3,
            f'prefork_requests_total{{{pool},method="PUT",code="5xx"}}': 0,
            f"prefork_request_duration_seconds_count{{{pool}}}": 12,
            f'prefork_exchange_duration_seconds_bucket{{{pool},le="+Inf"}}': 12,
            f"prefork_response_bytes_total{{{pool}}}": 120,
            f"prefork_connections_accepted_total{{{pool}}}": 13,
            f"sum(prefork_refused_total{{{pool}}})": 1,
            f'prefork_workers{{{pool},state="idle"}}': 2,
            f"prefork_worker_spawns_total{{{pool}}}": 2,
            f"sum(prefork_worker_deaths_total{{{pool}}})": 0,
            f"prefork_listen_queue_limit{{{pool}}} > bool 0": 1,
            "prefork_generation": 1,
            "prefork_ready": 1,
            f'prefork_build_info{{python="{sys.version.split()[0]}"}}': 1,
            "time() - prefork_config_last_reload_success_timestamp_seconds < bool 120": 1,
        }.items():
            assert watcher.value(expression) == expected, expression
        assert watcher.value(f"prefork_request_bytes_total{{{pool}}}") > 3000
        assert watcher.value(f"sum(prefork_worker_cpu_seconds_total{{{pool}}})") > 0
        assert watcher.value(f"min(prefork_worker_pss_bytes{{{pool}}})") > 1 << 20

        silent = {title for title, expression in panel_expressions() if not watcher.query(expression)}
        assert silent <= QUIET

        def rules() -> list[Any]:
            return watcher.get("rules")["groups"][0]["rules"]

        wait_for(lambda: all(rule["health"] == "ok" for rule in rules()), "each alert to be evaluated")
        assert [rule["name"] for rule in rules() if rule["state"] == "firing"] == []
        types = watcher.get("metadata", metric="prefork_request_duration_seconds")
        assert types["prefork_request_duration_seconds"][0]["type"] == "histogram"
        classic = urllib.request.Request(f"http://{admin}/metrics", headers={"Accept": "text/plain"})
        with urllib.request.urlopen(classic, timeout=PATIENCE_S) as response:
            lint = subprocess.run(["promtool", "check", "metrics"], input=response.read(), capture_output=True,
                                  check=False, timeout=60)  # fmt: skip
        assert (lint.returncode, lint.stdout, lint.stderr) == (0, b"", b"")
        server.configure("app: myapp:app\nlisten: 127.0.0.1:0\nworkers: none\n", None)
        assert server.reload() == "failed"
        alarm = 'ALERTS{alertname="PreforkReloadFailed",alertstate="firing"}'
        wait_for(lambda: watcher.value(alarm) == 1, "an alert about the failed reload")
    assert server.stop() == 0
