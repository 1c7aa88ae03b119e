"""Who look at a server all the time: its status, metrics and page over HTTP, and its control socket."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Lock, Thread

from bench.sanity import Watch
from prefork.cli.remote.server import RemoteServer

PATIENCE_S = 30.0
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}

MayFail = Callable[[float, float], bool]
"""Whether a look between two instants (monotonic seconds) may have failed."""


class Spells:
    """When something was so, as far as it excuses failures."""

    def __init__(self) -> None:
        self._spells: list[tuple[float, float]] = []
        self._lock = Lock()

    def note(self, lasts_s: float = 0.5) -> None:
        """It begins now."""
        now = time.monotonic()
        with self._lock:
            self._spells.append((now - 0.05, now + lasts_s))

    def meet(self, since: float, until: float) -> bool:
        """Tell whether it was so at some time between two instants."""
        with self._lock:
            return any(begin < until and since < end for begin, end in self._spells)


class Reader(Thread):
    """Looks at one thing, and notes what failed, what cannot be, and how long the slowest answer took."""

    def __init__(self, name: str, look: Callable[[Watch], None], may_fail: MayFail, watch: Watch) -> None:
        super().__init__(name=name, daemon=True)
        self.watch = watch
        self.failures: list[str] = []
        self.excused = 0
        self.slowest_s = 0.0
        self.enough = Event()
        self._look, self._may_fail = look, may_fail

    def run(self) -> None:
        while not self.enough.wait(0.02):
            began = time.monotonic()
            try:
                self._look(self.watch)
            except Exception as error:
                time.sleep(0.2)  # who disturbs takes note of it just after
                if self._may_fail(began, time.monotonic()):
                    self.excused += 1
                else:
                    self.failures.append(f"{error!r} at {time.strftime('%H:%M:%S', time.gmtime())}")
            else:
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)


class Readers:
    """One of each kind."""

    def __init__(
        self, admin_port: int, control: Path, may_fail: MayFail, may_be_ill: MayFail, longest_request_s: float
    ) -> None:
        def of_http(path: str, see: Callable[[Watch, bytes], None]) -> Callable[[Watch], None]:
            return lambda watch: see(watch, fetch(admin_port, path))

        server = RemoteServer(str(control))
        looks: Mapping[str, Callable[[Watch], None]] = {
            "/status": of_http("/status", lambda watch, body: watch.see_status(json.loads(body))),
            "/metrics": of_http("/metrics", lambda watch, body: watch.see_metrics(body.decode())),
            "/": of_http("/", see_page),
            "/healthz": of_http("/healthz", see_health),
            "control socket": lambda watch: watch.see_status(
                server.ask("status", time.monotonic() + PATIENCE_S)["result"]
            ),
        }
        self.all = [
            Reader(name, look, may_be_ill if name == "/healthz" else may_fail, Watch(longest_request_s))
            for name, look in looks.items()
        ]

    def start(self) -> None:
        for reader in self.all:
            reader.start()

    def stop(self) -> None:
        for reader in self.all:
            reader.enough.set()
        for reader in self.all:
            reader.join(2 * PATIENCE_S)

    @property
    def failures(self) -> list[str]:
        """What failed without an excuse, and what cannot be."""
        return [
            f"{reader.name}: {what}"
            for reader in self.all
            for what in (*reader.failures, *reader.watch.wrong)
        ] + [f"{reader.name} does not end" for reader in self.all if reader.is_alive()]


def fetch(port: int, path: str) -> bytes:
    """Return what the admin listener answers. Raises ``OSError`` and ``HTTPException``, also if it is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers=OPENMETRICS)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"{answer.status} {body[:200]!r}")
        return body
    finally:
        connection.close()


def see_health(watch: Watch, body: bytes) -> None:
    watch.looks += 1


def see_page(watch: Watch, body: bytes) -> None:
    watch.looks += 1
    if not body.rstrip().endswith(b"</html>"):
        watch.wrong.append(f"the page ends with {body[-50:]!r}")
