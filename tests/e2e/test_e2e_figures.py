"""One load of known size, whatever happens meanwhile: status, metrics and control socket show exactly that."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from bisect import bisect_right
from typing import Any

import pytest
from clients import hold
from harness import PATIENCE_S, Server, wait_for
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from test_e2e_admin import Admin

from prefork.cli.main import main

SLOW_S, DEADLINE_S, HEAD_S = 1.5, 2.0, 0.5
CONFIG = f"""
app: myapp:app
listen: 127.0.0.1:0
workers: 3
timeouts: {{slow: {SLOW_S}s, request: {DEADLINE_S}s, head: {HEAD_S}s, body: {HEAD_S}s,
           overrides: [{{path: /hold, request: 0}}]}}
limits: {{body: 1000}}
admin: {{listen: 127.0.0.1:0}}
control: ./ctl
log: {{access: off}}
"""
APP = """
import os, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/error":
        raise ValueError("on purpose")
    if path == "/hold":
        open("held-hold", "w").write(str(os.getpid()))
        time.sleep(600)
    if path.startswith("/ms/"):
        time.sleep(int(path[4:]) / 1000)
    body = environ["wsgi.input"].read() or str(os.getpid()).encode().rjust(10)
    status = {"/missing": "404 Not Found", "/moved": "302 Found"}.get(path, "200 OK")
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]
"""
PASSING = (
    "uptime_s", "cpu_s", "rss_bytes", "pss_bytes", "uss_bytes",
)  # fmt: skip
"""What is another at each look."""


class Ledger:
    """Sends requests, and keeps the books: what the server must have counted."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self.accepted = self.received_bytes = self.sent_bytes = 0
        self.by_method: dict[str, dict[str, int]] = {}
        self.refused: dict[str, int] = {}
        self.least_s: list[float] = []
        """How long each request took at least in the application; and at most, as its client saw it."""
        self.most_s: list[float] = []

    def connect(self) -> socket.socket:
        with self._lock:
            self.accepted += 1
        return socket.create_connection(("127.0.0.1", self._port), PATIENCE_S)

    def send(self, sock: socket.socket, request: bytes) -> bytes:
        """Return the first of the answer, which comes at once as a whole."""
        with self._lock:
            self.received_bytes += len(request)
        sock.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += (data := sock.recv(65536))
            if not data:
                break
        return received

    def ask(
        self,
        sock: socket.socket,
        what: str,
        code: str = "200",
        body: bytes = b"",
        sent: int = 10,
        *,
        least_s: float = 0,
    ) -> bytes:
        """Send a request that the application gets; ``what`` is its method and target."""
        method = what.split()[0]
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        began = time.monotonic()
        answer = self.send(sock, f"{what} HTTP/1.1\r\nHost: t\r\n".encode() + length + b"\r\n" + body)
        assert answer.startswith(b"HTTP/1.1 " + code.encode()), answer
        with self._lock:
            row = self.by_method.setdefault("other" if method == "BREW" else method, {})
            row[f"{code[0]}xx"] = row.get(f"{code[0]}xx", 0) + 1
            self.sent_bytes += sent
            self.least_s.append(least_s)
            self.most_s.append(time.monotonic() - began)
        return answer

    def ask_once(self, what: str, code: str = "200", **more: Any) -> None:
        with self.connect() as sock:
            self.ask(sock, what, code, **more)

    def be_refused(self, request: bytes, code: str, reason: str) -> None:
        with self.connect() as sock:
            assert self.send(sock, request).startswith(b"HTTP/1.1 " + code.encode())
        with self._lock:
            self.refused[reason] = self.refused.get(reason, 0) + 1

    def check_latency(self, bounds_s: list[float], buckets: list[int], sum_s: float) -> None:
        """Check that each request is in a bucket in which it can be.

        A busy machine may put a worker aside between its answer and its count: that may happen to a few.
        """
        least, most, below = sorted(self.least_s), sorted(self.most_s), 0
        for bound_s, count in zip(bounds_s, buckets, strict=False):
            below += count
            assert bisect_right(most, bound_s) - 3 <= below <= bisect_right(least, bound_s), (
                bound_s,
                buckets,
                most,
            )
        assert sum(buckets) == len(least)
        assert sum(least) <= sum_s <= sum(most) + 1.0


def test_a_load_of_known_size_is_shown_exactly_by_everything(
    server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve(CONFIG, APP)
    admin = Admin(server)
    monkeypatch.chdir(server.folder)
    ledger = Ledger(server.port)
    deaths: dict[str, int] = {}

    def settle(reason: str, count: int = 1) -> None:
        """Wait until so many more have died, and the workers are there again."""
        deaths[reason] = deaths.get(reason, 0) + count

        def is_so() -> bool:
            pool = admin.status()["pools"]["myapp"]
            return pool["deaths"] == deaths and [w["state"] for w in pool["workers"]] == ["idle"] * 3

        wait_for(is_so, f"{deaths}")

    # What takes time goes on meanwhile.
    late_began = time.monotonic()
    threads = [
        threading.Thread(target=ledger.ask_once, args=("GET /ms/1600",), kwargs={"least_s": 1.6}),
        threading.Thread(
            target=ledger.ask_once, args=("GET /ms/60000", "504"), kwargs={"least_s": DEADLINE_S, "sent": 0}
        ),
        threading.Thread(target=ledger.be_refused, args=(b"GET / HT", "408", "head-timeout")),
        threading.Thread(
            target=ledger.be_refused,
            args=(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n12", "408", "body-timeout"),
        ),
    ]
    for thread in threads:
        thread.start()

    with ledger.connect() as kept:
        for _ in range(20):
            ledger.ask(kept, "GET /")
        ledger.ask(kept, "HEAD /", sent=0)
        ledger.ask(kept, "POST /", body=bytes(1000), sent=1000)
        ledger.ask(kept, "DELETE /moved", "302")
        for what in ("GET /ms/30", "GET /ms/30", "GET /ms/120"):
            ledger.ask(kept, what, least_s=int(what[8:]) / 1000)
    for what, code, sent in (("GET /missing", "404", 10), ("BREW /", "200", 10), ("GET /error", "500", 26)):
        ledger.ask_once(what, code, sent=sent)
    for request, code, reason in (
        (b"GET / HTTP/1.1\r\n\r\n", "400", "malformed"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", "414", "head-too-large"),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1001\r\n\r\n", "413", "body-too-large"),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501", "unsupported"),
    ):
        ledger.be_refused(request, code, reason)
        ledger.be_refused(request, code, reason)
    for thread in threads:
        thread.join(PATIENCE_S)
    settle("request-deadline")
    # The application never came back from the late one: it took until its worker ended.
    ledger.most_s[ledger.least_s.index(DEADLINE_S)] = time.monotonic() - late_began

    # A worker is killed between requests, and one within; the second is in no count of requests, for it did not end.
    os.kill(admin.status()["pools"]["myapp"]["workers"][0]["pid"], signal.SIGKILL)
    settle("died")
    cut, pid = hold(server, "/hold")
    ledger.accepted += 1
    head = f"GET /hold HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept-Encoding: identity\r\n\r\n"
    ledger.received_bytes += len(head)
    os.kill(pid, signal.SIGKILL)
    assert cut.outcome() == "cut"
    settle("died")

    # A worker that leaves hands over what is kept alive. (Busy ones may have done so before.)
    handed_over = admin.status()["pools"]["myapp"]["handed_over"]
    kept_alive = [ledger.connect() for _ in range(4)]
    holders = [int(ledger.ask(sock, "GET /").split()[-1]) for sock in kept_alive]
    [leaver] = [w for w in admin.status()["pools"]["myapp"]["workers"] if w["pid"] == holders[0]]
    assert main(["recycle", leaver["slot"], "--control", "ctl"]) == 0
    settle("recycled-command")
    handed_over += holders.count(leaver["pid"])
    for sock in kept_alive:
        ledger.ask(sock, "GET /")
    idle = {"idle": 4, "reading": 0, "running": 0, "writing": 0}
    wait_for(lambda: admin.status()["pools"]["myapp"]["connections"] == idle, f"{idle}")
    assert sum(w["connections"] for w in admin.status()["pools"]["myapp"]["workers"]) == 4
    for sock in kept_alive:
        sock.close()
    wait_for(lambda: not sum(admin.status()["pools"]["myapp"]["connections"].values()), "their ends")

    server.write("myapp.py", "import nothing_there\n")
    assert server.reload() == "failed"
    server.write("myapp.py", APP)
    assert server.reload() == "reloaded"
    settle("retired", 3)
    ledger.ask_once("GET /")
    os.kill(before := admin.pid, signal.SIGKILL)
    admin.only(but=before)
    requests = len(ledger.least_s)
    wait_for(lambda: admin.status()["pools"]["myapp"]["requests"] >= requests, "the last request")

    status = admin.status()
    pool = status["pools"]["myapp"]
    expected = {
        "workers_wanted": 3,
        "bounds": None,
        "threads": 1,
        "requests": requests,
        "errors": 2,
        "accepted": ledger.accepted,
        "handed_over": handed_over,
        "adopted": handed_over,
        "slow": 2,
        "deadlines": 1,
        "received_bytes": ledger.received_bytes,
        "sent_bytes": ledger.sent_bytes,
        "by_method": ledger.by_method,
        "refused": ledger.refused,
        "connections": {"idle": 0, "reading": 0, "running": 0, "writing": 0},
        "spawned": 3 + sum(deaths.values()),
        "deaths": {"request-deadline": 1, "died": 2, "recycled-command": 1, "retired": 3},
        "generations": [3],
    }
    assert {key: pool[key] for key in expected} == expected
    assert [(w["slot"], w["generation"]) for w in pool["workers"]] == [(f"myapp.{n}", 3) for n in range(3)]
    assert sum(worker["requests"] for worker in pool["workers"]) == 1
    assert [death["reason"] for death in status["deaths"]] == [
        "retired", "retired", "retired", "recycled-command", "died", "died", "request-deadline",
    ]  # fmt: skip
    assert (status["generation"], status["reloads_total"]) == (3, {"ok": 1, "failed": 1})
    latency = pool["latency"]
    for kind in ("application", "exchange"):
        ledger.check_latency(latency["bounds_s"], latency[kind], latency[f"{kind}_sum_s"])

    capfd.readouterr()
    assert main(["status", "--json", "--control", "ctl"]) == 0
    assert without_passing(json.loads(capfd.readouterr().out)) == without_passing(status)
    check_metrics(admin.get("/metrics")[1], status)
    assert server.stop() == 0


def without_passing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_passing(each) for key, each in value.items() if key not in PASSING}
    return [without_passing(each) for each in value] if isinstance(value, list) else value


def check_metrics(text: str, status: dict[str, Any]) -> None:
    """Check that they say the same as the status, and nothing else."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for key, value in sample.labels.items() if key != "pool")
            found.setdefault(sample.name.removeprefix("prefork_"), {})[labels] = sample.value
    pool = status["pools"]["myapp"]

    def nonzero(name: str) -> dict[tuple[str, ...], float]:
        return {labels: value for labels, value in found[name].items() if value}

    for name, key in (
        ("connections_accepted_total", "accepted"),
        ("connections_handed_over_total", "handed_over"),
        ("connections_adopted_total", "adopted"),
        ("slow_requests_total", "slow"),
        ("request_deadlines_total", "deadlines"),
        ("request_bytes_total", "received_bytes"),
        ("response_bytes_total", "sent_bytes"),
        ("worker_spawns_total", "spawned"),
        ("workers_wanted", "workers_wanted"),
        ("worker_threads", "threads"),
    ):
        assert found[name] == {(): pool[key]}, name
    assert nonzero("requests_total") == {
        (code, method): count for method, row in pool["by_method"].items() for code, count in row.items()
    }
    for name, key in (("refused_total", "refused"), ("worker_deaths_total", "deaths")):
        assert nonzero(name) == {(reason,): count for reason, count in pool[key].items()}
    assert nonzero("reloads_total") == {("ok",): 1, ("failed",): 1}
    assert nonzero("workers") == {("idle",): 3}
    assert nonzero("connections") == {}
    assert found["requests_in_flight"] == {(): 0}
    assert (found["generation"], found["ready"], found["healthy"]) == ({(): 3}, {(): 1}, {(): 1})
    [listener] = pool["listeners"]
    assert found["listen_queue"] == {(listener["address"],): 0}
    assert found["listen_queue_limit"] == {(listener["address"],): listener["backlog"]}
    for name, kind in (("request", "application"), ("exchange", "exchange")):
        buckets = pool["latency"][kind]
        below = [sum(buckets[: index + 1]) for index in range(len(buckets))]
        assert list(found[f"{name}_duration_seconds_bucket"].values()) == below
        assert found[f"{name}_duration_seconds_count"] == {(): pool["requests"]}
        assert found[f"{name}_duration_seconds_sum"] == {(): pool["latency"][f"{kind}_sum_s"]}
    for slot, figures in pool["slots"].items():
        assert found["worker_cpu_seconds_total"][slot,] >= figures["cpu_s"] > 0
