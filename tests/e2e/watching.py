"""Looks at a running server as its admin process does: the bulletin and the scoreboards, from outside."""

from __future__ import annotations

import os
import re
from pathlib import Path
from time import monotonic
from typing import Any

from harness import Server, wait_for

from prefork.bulletin import Bulletin
from prefork.observer import Observer
from prefork.scoreboard import Scoreboard
from prefork.status import status


class Watcher:
    """One reader of one server; it takes the scoreboards of new generations from the master's descriptors."""

    def __init__(self, server: Server) -> None:
        self._server = server
        fd = wait_for(lambda: self._open("prefork-bulletin"), "the bulletin")
        bulletin = Bulletin(fd)
        bulletin.close()
        self._observer = Observer(bulletin)
        self._boards: dict[tuple[str, int], Scoreboard] = {}

    def status(self) -> dict[str, Any]:
        """Return the status; wait for one, at the start."""
        return wait_for(self.status_if_any, "a status")

    def status_if_any(self) -> dict[str, Any] | None:
        """Return the status, None if there is none that belongs together."""
        document = self._observer.document()
        for name, pool in document["pools"].items() if document is not None else ():
            for generation in pool["generations"]:
                self._map(name, generation)
        sight = self._observer.look(self._boards)
        return sight and status(sight.document, sight.boards, monotonic())

    def pool(self, name: str = "myapp") -> dict[str, Any]:
        found: dict[str, Any] = self.status()["pools"][name]
        return found

    def _map(self, pool: str, generation: int) -> None:
        if (pool, generation) not in self._boards:
            fd = self._open(f"prefork-{pool}-{generation}")
            if fd is not None:
                self._boards[pool, generation] = board = Scoreboard(fd, -1)
                board.close()

    def _open(self, name: str) -> int | None:
        """Open a file in memory that the master has."""
        try:
            for entry in Path(f"/proc/{self._server.pid}/fd").iterdir():
                if re.fullmatch(rf"/memfd:{name} .*", os.readlink(entry)):
                    return os.open(entry, os.O_RDWR)
        except OSError:  # closed since, or the server is gone
            pass
        return None
