"""A server of the page and of a status that a test describes; each answer is one second later than the one before."""

from __future__ import annotations

import base64
import copy
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefork.admin.app import HEADERS
from prefork.admin.page import joined

Status = dict[str, Any]

BOUNDS_S = [0.001, 0.01, 0.025, 0.1, 0.5, 1.0]


def worker(index: int, state: str = "idle", pool: str = "shop", **fields: Any) -> Status:
    return {
        "slot": f"{pool}.{index}",
        "pid": 400 + index,
        "generation": 3,
        "state": state,
        "requests": 1200,
        "errors": 0,
        "handed_over": 3,
        "connections": 4,
        "current": next(iter(fields.get("running", [])), None),
        "running": [],
        "rss_bytes": 90 << 20,
        "pss_bytes": 40 << 20,
        "uss_bytes": 30 << 20,
        "cpu_s": 12.5,
        "uptime_s": 4000.0,
        **fields,
    }


def running(target: str, elapsed_s: float = 0.4, slow: bool = False, thread: int = 0) -> Status:
    return {
        "method": "GET",
        "target": target,
        "request_id": "0b5c",
        "thread": thread,
        "elapsed_s": elapsed_s,
        "slow": slow,
    }


def pool(*workers: Status, **fields: Any) -> Status:
    return {
        "workers_wanted": len(workers),
        "bounds": None,
        "threads": 1,
        "requests": 5000,
        "errors": 2,
        "accepted": 900,
        "handed_over": 7,
        "adopted": 7,
        "slow": 0,
        "deadlines": 0,
        "received_bytes": 1,
        "sent_bytes": 1,
        "by_method": {"GET": {"2xx": 5000}},
        "refused": {},
        "connections": {"idle": 6, "reading": 0, "running": 1, "writing": 0},
        "latency": {
            "bounds_s": BOUNDS_S,
            "application": [0] * 7,
            "application_sum_s": 0,
            "exchange": [0] * 7,
            "exchange_sum_s": 0,
        },
        "spawned": 4,
        "deaths": {},
        "generations": [3],
        "listeners": [{"address": "0.0.0.0:8000", "queue": 0, "backlog": 2048}],
        "slots": {worker["slot"]: {"cpu_s": 20.0} for worker in workers},
        "workers": list(workers),
        **fields,
    }


def status(*workers: Status, **fields: Any) -> Status:
    return {
        "format": 1,
        "name": "shop",
        "version": "0.1.0",
        "pid": 1,
        "state": "serving",
        "generation": 3,
        "uptime_s": 4000.0,
        "config": ["app.yaml"],
        "config_hash": "9f2c41",
        "ready": True,
        "healthy": True,
        "last_reload": None,
        "reloads": [],
        "reloads_total": {"ok": 0, "failed": 0},
        "last_upgrade": None,
        "pools": {"shop": pool(*(workers or (worker(0), worker(1))))},
        "deaths": [],
        **fields,
    }


class PageServer(http.server.ThreadingHTTPServer):
    """Serves the page and what ``document`` is; ``each_second`` changes it after each answer."""

    daemon_threads = True

    def __init__(self, document: Status) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.document = document
        self.each_second: Callable[[Status], object] = lambda document: None
        self.prefix = ""
        self.token: str | None = None
        self.failure: tuple[int, str] | None = None
        self.asked: list[str] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_status(self) -> Status:
        with self._lock:
            said = copy.deepcopy(self.document)
            self.document["uptime_s"] += 1.0
            self.each_second(self.document)
        return said

    def change(self, change: Callable[[Status], object]) -> None:
        with self._lock:
            change(self.document)


class Handler(http.server.BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        path = self.path.removeprefix(self.server.prefix)
        self.server.asked.append(path)
        given = self.headers.get("Authorization", "")
        if self.server.token and given != f"Basic {base64.b64encode(self.server.token.encode()).decode()}":
            self.say(
                401, "text/plain", b"401\nThis needs admin.token", [("WWW-Authenticate", 'Basic realm="x"')]
            )
        elif path in ("/", ""):
            page = joined()
            self.say(200, page.content_type, page.body, [*HEADERS, *page.headers])
        elif path != "/status":
            self.say(404, "text/plain", b"404 Not Found\n", [])
        elif self.server.failure:
            code, text = self.server.failure
            self.say(code, "text/plain", text.encode(), [])
        else:
            body = json.dumps(self.server.next_status()).encode()
            self.say(200, "application/json", body, list(HEADERS))

    def say(self, code: int, content_type: str, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response(code)
        for name, value in (("Content-Type", content_type), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(document: Status) -> Iterator[PageServer]:
    server = PageServer(document)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
