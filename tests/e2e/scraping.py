"""Scrapes the admin listener, as Prometheus does."""

from __future__ import annotations

import http.client
import socket
import threading
from pathlib import Path

from harness import PATIENCE_S, Server
from prometheus_client.openmetrics.parser import text_string_to_metric_families

Samples = dict[str, float]
"""By name and labels, as they are written: ``x_total{kind="web",pool="shop"}``."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


def scrape(server: Server) -> Samples:
    """Return what ``/metrics`` shows on the unix socket ``admin.sock`` in the server's folder."""
    connection = _UnixConnection(server.folder / "admin.sock")
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status == 200, text
    finally:
        connection.close()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


class Scraper:
    """Scrapes all the time; a context manager. Remembers what fell, although it is a counter."""

    def __init__(self, server: Server) -> None:
        self.scrapes = 0
        self.fell: list[str] = []
        self.failures: list[str] = []
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(2 * PATIENCE_S)

    def _run(self) -> None:
        before: Samples = {}
        while not self._over.is_set():
            try:
                now = scrape(self._server)
            except Exception as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                now = before
            # What is known of a worker's CPU ends with the admin process that has seen it.
            self.fell += [
                f"{name}: {before[name]:g}, then {now.get(name)}"
                for name in before
                if "_cpu_" not in name
                and name.partition("{")[0].endswith(("_total", "_count", "_bucket"))
                and now.get(name, -1) < before[name]
            ]
            before = now
            self.scrapes += 1
            self._over.wait(0.05)
