"""Who holds an address that we want: answers from /proc, for error messages and for the retry at start.

Runs in the master, only after a bind has failed. Nothing here may take long or raise: a process that we may
not look into is simply not found, and the scan gives up after ``SCAN_BUDGET_S``.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefork.errors import ListenError

SCAN_BUDGET_S = 0.25
TITLE_LENGTH = 80
TCP_LISTEN = "0A"
ORPHAN_TITLES = ("prefork: worker ", "prefork: mold ")


@dataclass(frozen=True)
class Holder:
    """A process that has the socket open; ``title`` is its command line, shortened."""

    pid: int
    title: str

    @property
    def may_be_orphan(self) -> bool:
        """Whether this may be a worker or mold whose master was killed, and which therefore soon leaves."""
        return self.title.startswith(ORPHAN_TITLES)

    def __str__(self) -> str:
        if self.pid == os.getpid():
            return "this server itself, for another entry of its config"
        return f"pid {self.pid} ({self.title})"


class AddressBusy(ListenError):
    """The address is held, but probably not for long: by orphans of a killed master, or by someone unknown.

    Try again on a timer; every other ``ListenError`` is final.
    """


def in_use(address: str, holders: Sequence[Holder], hint: str) -> ListenError:
    """Return the error for an address in use: ``AddressBusy`` unless it is held by somebody who will stay.

    ``hint`` is what to do when the holder could not be found.
    """
    staying = [holder for holder in holders if not holder.may_be_orphan]
    if staying:
        return ListenError(f"cannot listen on {address}: already in use by {staying[0]}")
    if holders:
        return AddressBusy(
            f"cannot listen on {address}: still in use by {holders[0]}, "
            "left behind by a master that was killed"
        )
    return AddressBusy(f"cannot listen on {address}: already in use by another process; {hint}")


def tcp_holders(host: str, port: int) -> list[Holder]:
    """Return the processes whose listening conflicts with ours on a numeric address."""
    return _holders_of(set(_tcp_inodes(host, port)))


def unix_holders(path: str) -> list[Holder]:
    """Return the processes that have a unix socket open that was bound to ``path``."""
    wanted = {path, os.path.abspath(path)}
    inodes = set()
    for line in _lines("/proc/net/unix"):
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] in wanted:
            inodes.add(fields[6])
    return _holders_of(inodes)


def holder(pid: int) -> Holder | None:
    """Return the process ``pid``, or None when it is gone or in a namespace that we do not see."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
        if not command:
            command = Path(f"/proc/{pid}/comm").read_bytes().rstrip()
    except OSError:
        return None
    # The title is text of another process on its way to our log: one line, printable.
    title = "".join(c if c.isprintable() else "?" for c in command.decode("utf-8", "replace"))
    return Holder(pid, title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1] + "…")


def _tcp_inodes(host: str, port: int) -> Iterator[str]:
    ours = _as_proc_shows(host)
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _lines(table):
            fields = line.split()
            # Listening sockets come first in these tables, so a busy machine's connections are never read.
            if fields[3] != TCP_LISTEN:
                break
            theirs, their_port = fields[1].rsplit(":", 1)
            if int(their_port, 16) == port and (theirs == ours or _is_wildcard(theirs) or _is_wildcard(ours)):
                yield fields[9]


def _as_proc_shows(host: str) -> str:
    """Write a numeric address as /proc/net/tcp does: hexadecimal, in 32-bit words of this machine's order."""
    host = host.partition("%")[0]
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{socket.ntohl(int.from_bytes(word, 'big')):08X}" for word in words)


def _is_wildcard(hexadecimal: str) -> bool:
    return not hexadecimal.strip("0")


def _lines(path: str) -> Iterator[str]:
    """Yield the lines of a /proc table without its heading; nothing when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as table:
            next(table, None)
            for line in table:
                yield line.rstrip("\n")
    except OSError:
        return


def _holders_of(inodes: Iterable[str]) -> list[Holder]:
    """Return the processes with one of these socket inodes among their descriptors."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted:
        return []
    give_up = time.monotonic() + SCAN_BUDGET_S
    found = []
    for pid in _pids():
        if time.monotonic() > give_up:
            break
        if _has_open(pid, wanted) and (process := holder(pid)):
            found.append(process)
    return found


def _pids() -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    except OSError:
        return []


def _has_open(pid: int, targets: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        try:
            if os.readlink(f"{folder}/{name}") in targets:
                return True
        except OSError:
            continue
    return False
