"""Which server is meant: that of a config, of a path, or the only one that runs. Runs in a command.

The kernel lists the sockets on which somebody listens; those that ``control: auto`` has placed are known by their
names, and are asked who they are.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefork.cli.remote.connection import (
    Connection,
    ConnectionEnded,
    NoServerError,
    NotPermittedError,
    TimedOutError,
)
from prefork.config import load, stated_control
from prefork.control_protocol import PREFIX, from_shown, shown
from prefork.errors import ConfigError, ExitStatus

HELLO_S = 3.0
_LISTENS = 0x10000
"""The flag of a listening socket in /proc/net/unix, ``__SO_ACCEPTCON``."""


@dataclass(frozen=True)
class Found:
    """A server that runs. Without a ``name`` it does not answer, or not to us: ``problem`` says why."""

    address: str
    pid: int
    name: str = ""
    config: tuple[str, ...] = ()
    problem: str = ""
    is_silent: bool = False
    """It should answer, and does not."""

    def __str__(self) -> str:
        source = ", ".join(self.config) or "command line"
        who = f"{self.name} (pid {self.pid}, {source})" if self.name else self.problem
        return f"--control {shown(self.address)}  {who}"


def find(files: Sequence[str], control: str | None, deadline: float, *, changes: bool) -> Connection:
    """Connect to the server that is meant. Raises ``NoServerError``, which says what there is instead.

    ``changes``: it is to be changed; so the only one that answers is not taken where another one does not.
    """
    if control is not None:
        return Connection.open(from_shown(control), deadline)
    if files:
        return _of_config(files, deadline)
    found = list(servers(deadline))
    if changes and len(found) > 1 and any(each.is_silent for each in found):
        raise NoServerError(f"not all servers here answer; say which, by -c FILE or one of:{_listed(found)}")
    return _only(found, "no server runs here that could be found", deadline)


def servers(deadline: float) -> Iterator[Found]:
    """Yield each server that runs here; one of another container only if there is no other."""
    found = [_meet(address, min(deadline, time.monotonic() + HELLO_S)) for address in addresses()]
    there = [each for each in found if each is not None]
    yield from [each for each in there if each.pid] or there


def addresses(
    table: str = "/proc/net/unix", environ: os._Environ[str] | dict[str, str] = os.environ
) -> list[str]:
    """Return the addresses of control sockets that ``auto`` may have placed."""
    found: dict[str, None] = {}
    try:
        lines = Path(table).read_text(errors="surrogateescape").splitlines()[1:]
    except OSError:
        lines = []
    for line in lines:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & _LISTENS:
            name = fields[7]
            if os.path.basename(name.removeprefix("@")).startswith(PREFIX) and name.startswith(("/", "@")):
                found[from_shown(name)] = None
    runtime = (environ.get("RUNTIME_DIRECTORY", "").partition(":")[0], environ.get("XDG_RUNTIME_DIR", ""))
    for directory in ("/run/prefork", "/run/*", *filter(None, runtime)):
        found.update(dict.fromkeys(glob.glob(f"{directory}/{PREFIX}*.sock")))
    return list(found)


def _meet(address: str, deadline: float) -> Found | None:
    """Ask who listens there; None if nobody does."""
    try:
        connection = Connection.open(address, deadline)
    except NotPermittedError as error:
        return Found(address, 0, problem=str(error))
    except NoServerError:
        return None
    except TimedOutError as error:
        return Found(address, 0, problem=str(error), is_silent=True)
    with connection:
        try:
            answer = connection.ask("hello", deadline)
        except (ConnectionEnded, NoServerError):
            return None
        except TimedOutError:
            problem = f"pid {connection.pid} does not answer"
            return Found(address, connection.pid, problem=problem, is_silent=True)
        if answer["status"] != ExitStatus.OK:
            return Found(address, connection.pid, problem=str(answer["message"]))
        config = tuple(map(str, answer.get("config", ())))
        return Found(address, connection.pid, str(answer.get("name", "")), config)


def _of_config(files: Sequence[str], deadline: float) -> Connection:
    """Connect to the server of these files: by the path that is in them, or to the one that was started with them.

    So a server is found that has another path by now, or whose config has a mistake. Raises ``ConfigError`` if the
    files cannot be read, so that nobody knows where it is.
    """
    named, trouble, mistakes = " -c ".join(files), "", ""
    control: str | None
    try:
        control = load(files).config.control
    except ConfigError as error:
        control, mistakes = stated_control(files), str(error)
    if control not in ("auto", "off", None):
        try:
            return Connection.open(os.path.abspath(control), deadline)
        except NoServerError as error:
            trouble = f"\n{error}"
    wanted = [os.path.realpath(file) for file in files]
    found = list(servers(deadline))
    ours = [each for each in found if [os.path.realpath(file) for file in each.config] == wanted]
    if ours:
        return _only(ours, "", deadline)
    if control == "off":
        raise NoServerError(f"-c {named} says control: off, so its server takes signals only")
    others = f"\nThere is:{_listed(found)}" if found else ""
    missing = f"no server runs here that was started with -c {named}: is it running?{trouble}{others}"
    if control is None:
        raise ConfigError(f"{mistakes}\nprefork: the config may say where its control socket is; {missing}")
    raise NoServerError(missing)


def _only(found: Sequence[Found], none: str, deadline: float) -> Connection:
    answering = [each for each in found if each.name]
    if len(answering) == 1:
        return Connection.open(answering[0].address, deadline)
    if not found:
        raise NoServerError(f"{none}: is it running?")
    if not answering:
        raise NoServerError(f"a server runs here, and does not answer, or not to you:{_listed(found)}")
    raise NoServerError(
        f"{len(answering)} servers run here; say which, by -c FILE or one of:{_listed(answering)}"
    )


def _listed(found: Sequence[Found]) -> str:
    return "".join(f"\n  {each}" for each in found)
