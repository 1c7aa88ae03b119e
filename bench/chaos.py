"""``python -m bench.chaos``: load, and meanwhile whatever can happen to a server, at random but by a seed.

At the end nothing may be left of it: no request has failed but in processes that were killed, and processes,
descriptors and memory are back to where they were. Who looked at the server meanwhile had an answer each time, and
saw nothing that cannot be. The test suite runs a short version.
"""

from __future__ import annotations

import argparse
import http.client
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.memory import descendants
from bench.processes import descriptors, is_alive, send_signal, title, uss_kib
from bench.readers import Readers, Spells
from bench.servers import ROOT

T = TypeVar("T")

CLIENTS, PATIENCE_S = 8, 30.0
REQUEST_S, ABORT_S = 2.0, 3.0
"""``timeouts.request``, and how much later the worker of a late request may be killed at most."""
CONFIG = f"""
app: bench.chaos_app:application
name: chaos
listen: 127.0.0.1:0
workers: WORKERS
pythonpath: [{ROOT}]
timeouts: {{request: {REQUEST_S}, slow: 500ms, graceful: 5s, boot: 20s}}
recycle: {{requests: 3000, memory: 100MiB}}
admin: {{listen: "127.0.0.1:ADMIN"}}
control: ./ctl
hooks: {{worker_gone: "bench.chaos_app:worker_gone"}}
log: {{to: ./server.log, access: off}}
"""
BROKEN = (
    CONFIG + "wrokers: 2\n",
    CONFIG.replace("chaos_app:application", "chaos_app:aplication"),
    CONFIG + "umask: [\n",
    CONFIG + 'env: {X: "${UNKNOWN:?is missing}"}\n',
    CONFIG.replace("worker_gone:", "after_fork:").replace(":worker_gone", ":nothing"),
)


@dataclass
class State:
    """What should be the same before and after."""

    workers: int
    others: int
    descriptors: int
    uss_kib: int


@dataclass
class Report:
    """What came of it."""

    requests: int = 0
    excused: int = 0
    """Requests that failed in, or on connections of, a process that was killed."""
    failures: list[str] = field(default_factory=list)
    """Those that had no excuse."""
    deeds: Counter[str] = field(default_factory=Counter)
    before: State | None = None
    after: State | None = None
    exit_status: int | None = None
    left: list[int] = field(default_factory=list)
    """Processes that outlived the server."""
    internal_errors: list[str] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    looks: dict[str, str] = field(default_factory=dict)
    """By those who read status, metrics and page: how many, and how long the slowest took."""
    misread: list[str] = field(default_factory=list)
    """What failed for them, and what they were told that cannot be."""


class Chaos:
    """A server in ``folder``, its clients, and who disturbs them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.report = Report()
        self._folder = folder
        self._dice = random.Random(seed)
        self._kills, self._admin_kills, self._mold_kills = Spells(), Spells(), Spells()
        """When processes were, or may have been, killed."""
        self._lock = threading.Lock()
        self._over = False
        self._wanted = 4
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._admin_port = free.getsockname()[1]
        self._configure(CONFIG)
        self._master = subprocess.Popen(
            [sys.executable, "-m", "prefork", "-c", "app.yaml"], cwd=folder, start_new_session=True
        )
        found = self._wait_for(lambda: re.search(r"serving on \S+:(\d+)", self._log()), "the server to serve")
        self._port = int(found[1])
        longest_s = REQUEST_S + ABORT_S + PATIENCE_S
        self._readers = Readers(
            self._admin_port, folder / "ctl", self._admin_kills.meet, self._may_be_ill, longest_s
        )

    def run(self, seconds: float, *, gentle: bool = False) -> Report:
        """Disturb for some seconds, restore order, and compare. ``gentle``: kill no worker, so there is no excuse."""
        self._reload_well()  # so that the first figures are of a server that has lived a little
        self.report.before = self._settled()
        clients = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        self._readers.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._master.poll() is None:
            deed = self._dice.choices(DEEDS, GENTLE_WEIGHTS if gentle else WEIGHTS)[0]
            self.report.deeds[deed.__name__.strip("_")] += 1
            deed(self)
            time.sleep(self._dice.uniform(0.05, 0.4))
        time.sleep(REQUEST_S)
        self._over = True
        for client in clients:
            client.join()
        self._reload_well()
        self._readers.stop()
        self.report.after = self._settled()
        family = descendants(self._master.pid)
        self._master.terminate()
        self.report.exit_status = self._master.wait(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while (left := [pid for pid in family if is_alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.report.left = left
        self.report.misread = self._readers.failures
        self.report.looks = {
            reader.name: f"{reader.watch.looks}, at most {reader.slowest_s:.2f} s, {reader.excused} excused"
            for reader in self._readers.all
        }
        log = self._log()
        self.report.internal_errors = re.findall(r".*a mistake in prefork[^\0]{0,3000}", log)
        lines = re.findall(r"^\S+ (warning|error) +[^:]*: (.*)", log, re.MULTILINE)
        self.report.events = Counter(f"{level}: {re.sub('[0-9]+', 'N', text)[:110]}" for level, text in lines)
        return self.report

    def end(self) -> None:
        """Leave nothing behind, however it went."""
        if self._master.poll() is None:
            family = descendants(self._master.pid)
            self._master.kill()
            self._master.wait(PATIENCE_S)
            for pid in family:
                send_signal(pid, signal.SIGKILL)

    # Clients

    def _ask(self, number: int) -> None:
        """Send requests on kept-alive connections, and judge what fails."""
        dice = random.Random(number)
        connection, last_use = self._connect(), time.monotonic()
        while not self._over:
            path = dice.choice(("/", "/", "/ms/20", "/ms/200", "/post"))
            body = bytes(dice.choice((10, 200_000))) if path == "/post" else None
            try:
                connection.request("POST" if body else "GET", path, body)
                answer = connection.getresponse()
                text = answer.read().split()
                failure = (
                    "" if answer.status == 200 and int(text[1]) == len(body or b"") else str(answer.status)
                )
            except (OSError, http.client.HTTPException, ValueError) as error:
                failure = repr(error)
            now = time.monotonic()
            with self._lock:
                self.report.requests += 1
            if failure:
                self._judge(f"{path} {failure}", last_use, now)
                connection.close()
                connection = self._connect()
            last_use = now
            if dice.random() < 0.3:
                time.sleep(dice.uniform(0, 0.3))
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)

    def _judge(self, failure: str, since: float, until: float) -> None:
        time.sleep(0.2)  # who kills takes note of it just after
        was_killed = self._kills.meet(since - 0.1, until + 0.1)
        with self._lock:
            if was_killed:
                self.report.excused += 1
            else:
                self.report.failures.append(
                    f"{failure}, {until - since:.2f} s after the last use, at {_now()}"
                )

    def _may_be_ill(self, since: float, until: float) -> bool:
        """A mold that died twice is not started again at once: meanwhile no worker can boot."""
        return any(kills.meet(since, until) for kills in (self._admin_kills, self._mold_kills))

    # Deeds

    def _kill_worker(self) -> None:
        self._kills.note()
        send_signal(self._any_worker(), signal.SIGKILL)

    def _abort_worker(self) -> None:
        self._kills.note()
        send_signal(self._any_worker(), signal.SIGABRT)

    def _end_worker_from_within(self) -> None:
        self._kills.note()
        self._send(self._dice.choice(("/exit", "/crash")))

    def _ask_worker_to_leave(self) -> None:
        send_signal(self._any_worker(), signal.SIGTERM)

    def _kill_mold(self) -> None:
        self._mold_kills.note(PATIENCE_S)
        send_signal(self._any("mold"), signal.SIGKILL)

    def _kill_admin(self) -> None:
        self._admin_kills.note()
        send_signal(self._any("admin"), signal.SIGKILL)

    def _suspend_admin(self) -> None:
        self._suspend(self._any("admin"), self._dice.uniform(0.05, 0.8))

    def _suspend_worker(self) -> None:
        self._suspend(self._any_worker(), self._dice.uniform(0.05, 0.8))

    def _suspend_worker_for_long(self) -> None:
        """So that what it runs is late."""
        self._kills.note(REQUEST_S + ABORT_S)
        self._suspend(self._any_worker(), REQUEST_S + 1)

    def _suspend_master(self) -> None:
        self._suspend(self._master.pid, self._dice.uniform(0.05, 1.5))

    def _be_late(self) -> None:
        """Run into ``timeouts.request``: its own client is the only one to see that."""
        threading.Thread(target=self._send, args=(f"/ms/{int(REQUEST_S * 1500)}",), daemon=True).start()

    def _hog(self) -> None:
        self._send(f"/hog/{self._dice.randrange(20, 120)}")

    def _reload_soon(self) -> None:
        self._configure(CONFIG)
        self._tell(signal.SIGHUP)

    def _reload_badly(self) -> None:
        self._configure(self._dice.choice(BROKEN))
        self._tell(signal.SIGHUP)

    def _scale(self) -> None:
        for _ in range(self._dice.randrange(1, 4)):
            self._tell(self._dice.choice((signal.SIGTTIN, signal.SIGTTOU)))

    def _reopen_logs(self) -> None:
        self._tell(signal.SIGUSR1)

    def _upgrade(self) -> None:
        self._tell(signal.SIGUSR2)

    # Means

    def _configure(self, config: str) -> None:
        made = self._folder / "app.yaml.new"
        made.write_text(config.replace("WORKERS", str(self._wanted)).replace("ADMIN", str(self._admin_port)))
        made.rename(self._folder / "app.yaml")

    def _suspend(self, pid: int, seconds: float) -> None:
        send_signal(pid, signal.SIGSTOP)
        time.sleep(seconds)
        send_signal(pid, signal.SIGCONT)

    def _tell(self, number: int) -> None:
        send_signal(self._master.pid, number)

    def _send(self, path: str) -> None:
        connection = self._connect()
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    def _any_worker(self) -> int:
        return self._any("worker")

    def _any(self, kind: str) -> int:
        found = self._titled(kind)
        return self._dice.choice(found) if found else 0

    def _titled(self, kind: str) -> list[int]:
        return sorted(
            pid for pid in descendants(self._master.pid) if title(pid).startswith(f"prefork: {kind}")
        )

    def _log(self) -> str:
        path = self._folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # Order

    def _reload_well(self) -> None:
        """Reload the good config until that is what serves."""

        def reloaded() -> bool:
            mark = len(self._log())
            self._tell(signal.SIGHUP)
            outcome = r"generation \d+ serves, |the reload failed"
            found = self._wait_for(lambda: re.search(outcome, self._log()[mark:]), "the outcome of a reload")
            return "serves, " in found[0]

        self._configure(CONFIG)
        self._wait_for(reloaded, "a good reload")

    def _settled(self) -> State:
        """Return the state once there are just the workers that are wanted, a mold, and the admin process."""

        def look() -> State | None:
            state = State(
                len(self._titled("worker")), 0, descriptors(self._master.pid), uss_kib(self._master.pid)
            )
            state.others = len(descendants(self._master.pid)) - state.workers
            return state if (state.workers, state.others) == (self._wanted, 2) else None

        for _ in range(10):  # it must last
            self._wait_for(look, "the server to come to rest")
            time.sleep(0.1)
        return self._wait_for(look, "the server to come to rest")

    def _wait_for(self, condition: Callable[[], T | None], what: str) -> T:
        """Return the first true value."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := condition()):
            if time.monotonic() > deadline or self._master.poll() is not None:
                raise RuntimeError(f"waited in vain for {what}; the log ends with {self._log()[-2000:]}")
            time.sleep(0.05)
        return value


DEEDS = (
    Chaos._kill_worker, Chaos._abort_worker, Chaos._end_worker_from_within, Chaos._ask_worker_to_leave,
    Chaos._kill_mold, Chaos._suspend_worker, Chaos._suspend_worker_for_long, Chaos._suspend_master,
    Chaos._be_late, Chaos._hog, Chaos._reload_soon, Chaos._reload_badly, Chaos._scale, Chaos._reopen_logs,
    Chaos._upgrade, Chaos._kill_admin, Chaos._suspend_admin,
)  # fmt: skip
WEIGHTS = (3, 1, 2, 4, 1, 4, 1, 2, 2, 3, 4, 3, 4, 1, 2, 1, 1)
GENTLE_WEIGHTS = (0, 0, 0, 4, 1, 4, 0, 2, 2, 3, 4, 3, 4, 1, 2, 0, 1)
"""Only what no client may notice."""


def _now() -> str:
    return time.strftime("%H:%M:%S", time.gmtime())


def main() -> int:
    """Make chaos and say what came of it; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description="Disturb a server under load.")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long (default 300)")
    parser.add_argument("--seed", type=int, default=1, help="of what happens (default 1)")
    parser.add_argument("--gentle", action="store_true", help="kill no worker: then no request may fail")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder), options.seed)
        try:
            report = chaos.run(options.seconds, gentle=options.gentle)
        finally:
            chaos.end()
            Path("var").mkdir(exist_ok=True)
            (Path("var") / "chaos.log").write_text((Path(folder) / "server.log").read_text(errors="replace"))
    for name, value in vars(report).items():
        print(f"{name}: {value}" if not isinstance(value, Counter) else f"{name}:")
        if isinstance(value, Counter):
            for key, number in value.most_common():
                print(f"  {number:6} {key}")
    return 1 if report.failures or report.misread or report.internal_errors or report.exit_status else 0


if __name__ == "__main__":
    sys.exit(main())
