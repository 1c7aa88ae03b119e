"""A running prefork and what tests do with it: the real command, real signals, real sockets.

Everything waits for a condition, with a bound that only a hung server reaches.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from prefork.figures import Counts
from prefork.scoreboard import Scoreboard

PATIENCE_S = 30.0
HELLO = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""

UNMEASURED = ("env", "-u", "COVERAGE_PROCESS_START", "-u", "COVERAGE_PROCESS_CONFIG")
AS_NOBODY = (*UNMEASURED, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
"""A prefix with which root starts a command as a user without rights, who cannot write a measurement either."""

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Return the first true value of ``condition``."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:g} s in vain for {what}")
        time.sleep(0.01)  # between two looks at the condition


def works(*command: str) -> bool:
    """Tell whether this machine can run a command: the tool is there, and no sandbox forbids what it does."""
    if not shutil.which(command[0]):
        return False
    return subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_S).returncode == 0


def stat_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name, or None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def is_alive(pid: int) -> bool:
    fields = stat_fields(pid)
    return fields is not None and fields[0] not in "ZX"


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def started(pid: int) -> tuple[float, int]:
    """Return by what processes can be sorted by age; one that is gone comes last."""
    fields = stat_fields(pid)
    return (int(fields[19]) if fields else float("inf"), pid)


def children(pid: int) -> list[int]:
    """Return the pids of the direct children of a process, zombies too."""
    return all_children().get(pid, [])


def all_children() -> dict[int, list[int]]:
    """Return the children of every process that has some."""
    found: dict[int, list[int]] = {}
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        fields = stat_fields(pid)
        if fields is not None:
            found.setdefault(int(fields[1]), []).append(pid)
    return found


def open_files(pid: int) -> list[str]:
    """Return what the descriptors of a process lead to."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except FileNotFoundError:  # closed since
            pass
    return found


def descriptors(pid: int) -> list[str]:
    """Return what a process has open; of sockets and the like only the kind, and not what it is just reading."""
    passing = ("/proc/", "/sys/")
    kinds = [name.partition(":[")[0] for name in open_files(pid) if not name.startswith(passing)]
    return sorted(re.sub(r"(memfd:\S+)-\d+", r"\1", kind) for kind in kinds)


def context_switches(pid: int) -> int:
    """Return how often the threads of a process went to sleep or were preempted."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total


def rests(pid: int, seconds: float = 1.0) -> bool:
    """Tell whether a process does not wake up for so long."""
    before = context_switches(pid)
    try:
        wait_for(lambda: context_switches(pid) != before, "a wake-up", patience_s=seconds)
    except AssertionError:
        return True
    return False


def sum_of(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for count in counts:
        total = total.plus(count)
    return total


def exchange(sock: socket.socket, request: bytes) -> bytes:
    """Send bytes and return all that comes until the end of the connection."""
    sock.settimeout(PATIENCE_S)
    sock.sendall(request)
    return b"".join(iter(lambda: sock.recv(65536), b""))


class Server:
    """One prefork, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log_path = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: set[int] = set()

    # Files

    def write(self, name: str, text: str) -> Path:
        """Write a file; its mtime always changes, so that no stale byte code is used."""
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        for cached in (self.folder / "__pycache__").glob(f"{path.stem}.*"):
            cached.unlink()
        return path

    def configure(self, config: str, app: str | None = HELLO) -> None:
        """Write ``app.yaml`` and ``myapp.py``."""
        self.write("app.yaml", config)
        if app is not None:
            self.write("myapp.py", app)

    # Life

    def start(
        self,
        *args: str,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        output: int | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        """Start it without waiting for anything; ``output`` instead of the log gets what it prints."""
        command = [*prefix, sys.executable, "-m", "prefork", *(args or ("-c", "app.yaml"))]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log if output is None else output,
                stderr=log if output is None else output,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def serve(self, config: str | None = None, app: str | None = HELLO, **kwargs: object) -> None:
        """Configure, start, and wait until it serves."""
        if config is not None:
            self.configure(config, app)
        self.start(**kwargs)  # type: ignore[arg-type]
        self.wait_for_log("serving on ")

    @property
    def pid(self) -> int:
        """The master's pid (with a prefix such as ``unshare``, that of the prefix)."""
        assert self.process is not None
        return self.process.pid

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return the exit status, a signal as a negative number."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it, check that nobody is left, and return the exit status."""
        family = self.family()
        self.send_signal(number)
        status = self.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in family), f"the end of {family}")
        return status

    def kill_all(self) -> None:
        """End what is left; for the end of a test."""
        if self.process is None:
            return
        self.family()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
        for pid in self._seen:
            if title(pid).startswith("prefork: "):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    # Log

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def mark(self) -> int:
        """Return a place in the log, from which ``wait_for_log`` can look."""
        return len(self.log)

    def wait_for_log(self, pattern: str, after: int = 0, patience_s: float = PATIENCE_S) -> re.Match[str]:
        """Wait until a line of the log matches a regular expression."""
        expression = re.compile(pattern)
        try:
            return wait_for(lambda: expression.search(self.log[after:]), pattern, patience_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; the log is:\n{self.log}") from None

    # Processes

    def family(self) -> list[int]:
        """Return the pids of the master's living children, and remember them.

        One whose parent is still the intermediate that forked it is a child, too: who says "ready" may be faster
        than the intermediate's exit.
        """
        parents = all_children()
        born = parents.get(self.pid, [])
        molds = [pid for pid in born if title(pid).startswith("prefork: mold ")]
        intermediates = [pid for mold in molds for pid in parents.get(mold, [])]
        unborn = [pid for intermediate in intermediates for pid in parents.get(intermediate, [])]
        found = [pid for pid in sorted({*born, *unborn}) if is_alive(pid)]
        self._seen.update(found)
        return found

    def titled(self, pattern: str) -> list[int]:
        """Return the children whose title matches."""
        return [pid for pid in self.family() if re.search(pattern, title(pid))]

    def workers(self, pattern: str = "") -> list[int]:
        return self.titled(rf"^prefork: worker .*{pattern}")

    def molds(self, pattern: str = "") -> list[int]:
        """Return the molds; what one has forked bears its title, too, until it has a name of its own."""
        oldest: dict[str, int] = {}
        for pid in sorted(self.titled(rf"^prefork: mold .*{pattern}"), key=started):
            oldest.setdefault(title(pid), pid)
        return sorted(oldest.values())

    def wait_for_workers(self, count: int, pattern: str = "") -> list[int]:
        """Wait until there are exactly so many workers, all of them children of the master; return them."""

        found: list[int] = []

        def right_count() -> bool:
            found[:] = self.workers(pattern)
            return len(found) == count and set(found) <= set(children(self.pid))

        wait_for(right_count, f"{count} workers {pattern}")
        return found

    # Scoreboard

    @contextmanager
    def scoreboard(self) -> Iterator[Scoreboard]:
        """Look at the scoreboard of the newest generation."""
        found = {}
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                named = re.search(r"memfd:prefork-(?!last).*-([0-9]+)", os.readlink(entry))
            except FileNotFoundError:  # closed since
                continue
            if named:
                found[int(named[1])] = entry
        board = Scoreboard(os.open(found[max(found)], os.O_RDWR), -1)
        try:
            yield board
        finally:
            board.close()

    def counts(self) -> Counts:
        """Return what the living workers of the newest generation have counted."""
        with self.scoreboard() as board:
            return sum_of(cell.counts() for cell in board.cells)

    def workers_in(self, state: int) -> int:
        """Return how many workers of the newest generation say that they are in a state of ``scoreboard``."""
        with self.scoreboard() as board:
            return sum(cell.state == state for cell in board.cells)

    def settle(self) -> None:
        """Wait until only two workers and one mold are left, and the master has forgotten the others.

        The last thing it gives up of a generation is its scoreboard, which has two descriptors: one is its map's.
        """
        wait_for(lambda: len(children(self.pid)) == 3, "the end of the old generation")
        wait_for(lambda: descriptors(self.pid).count("/memfd:prefork-myapp (deleted)") == 2, "one scoreboard")

    # Requests

    @property
    def port(self) -> int:
        """The port of its first TCP listener."""
        found = re.search(r"serving on (?:\S+ )*?[^\s\"]*:(\d+)", self.log)
        assert found, self.log
        return int(found[1])

    def connect(self, timeout_s: float = PATIENCE_S) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        connection.connect()
        return connection

    def get(self, path: str = "/") -> tuple[int, str]:
        """Return status and body of one request on a connection of its own."""
        connection = self.connect()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def exchange(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own; return all that comes until its end."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as sock:
            return exchange(sock, request)

    def wait_for_answer(self, status: int, body: str, path: str = "/") -> None:
        """Wait until this is the answer: just after a reload an old worker may still give its own."""
        wait_for(lambda: self.get(path) == (status, body), f"the answer {body!r}")

    def reload(self) -> str:
        """Send HUP and wait for the outcome; return ``reloaded`` or ``failed``.

        A last worker of the generation before may yet answer a request; see ``wait_for_answer``.
        """
        mark = self.mark()
        self.send_signal(signal.SIGHUP)
        found = self.wait_for_log(r"generation (\d+) serves, |the reload failed", mark)
        return "reloaded" if found[1] else "failed"


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Make a server, and see that nothing of it outlives the block."""
    server = Server(folder)
    try:
        yield server
    finally:
        server.kill_all()
