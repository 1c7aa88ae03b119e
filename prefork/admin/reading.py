"""What the admin process reads: the master's bulletin, and the scoreboards of all generations, as they come and go.

Runs in the admin process; asked from its application threads, told of scoreboards in the loop's thread. Nothing here
waits for another process: what cannot be had now is answered as it was before.
"""

from __future__ import annotations

import json
import select
from threading import Lock
from time import monotonic, sleep
from typing import Any, NamedTuple

from prefork.bulletin import Bulletin
from prefork.scoreboard import Scoreboard
from prefork.status import status

ATTEMPTS = 50
PAUSE_S = 0.001
"""While the master puts document and cells together again; a turn of it is much shorter than all attempts."""

UNLISTED_S = 30.0
"""A scoreboard may come before the document that speaks of it."""


class _Held(NamedTuple):
    board: Scoreboard
    since: float


class Reading:
    """The ``Source`` of a real server."""

    def __init__(self, bulletin: Bulletin, lifeline: int) -> None:
        self._bulletin = bulletin
        self._lifeline = select.poll()
        self._lifeline.register(lifeline, select.POLLIN)
        self._held: dict[tuple[str, int], _Held] = {}
        self._listed: set[tuple[str, int]] = set()
        """Those that some document has spoken of."""
        self._lock = Lock()
        self._parsed: tuple[int, dict[str, Any]] | None = None
        self._last: dict[str, Any] | None = None

    def add_board(self, pool: str, generation: int, fd: int) -> None:
        """Map the scoreboard of a generation; ``fd`` is closed. Raises ``ValueError`` and ``OSError``."""
        board = Scoreboard(fd, -1)
        board.close()
        with self._lock:
            self._held[pool, generation] = _Held(board, monotonic())
            if self._read() is not None:
                self._drop_gone()

    def is_master_alive(self) -> bool:
        return not self._lifeline.poll(0)

    def document(self) -> dict[str, Any] | None:
        """Return what the master has published last; None if it has not yet."""
        with self._lock:
            found = self._read()
        return None if found is None else found[1]

    def status(self) -> dict[str, Any]:
        """Return the status without query strings, of a document and cells that belong together.

        If the master is in the middle of a change for long, that of the last time. Raises ``LookupError`` if the master
        has published nothing yet.
        """
        with self._lock:  # so that what one client has seen is never followed by something older
            for _ in range(ATTEMPTS):
                number = self._bulletin.number
                found = self._read()
                if found is not None and found[0] == number:
                    made = self._made(found[1])
                    if self._bulletin.number == number:
                        self._last = made
                        return made
                sleep(PAUSE_S)
            if self._last is not None:
                return self._last
            if (found := self._read()) is None:
                raise LookupError("the master has published no status yet")
            return status(found[1], {}, monotonic(), show_queries=False)

    def _made(self, document: dict[str, Any]) -> dict[str, Any]:
        self._drop_gone()
        boards = {key: held.board for key, held in self._held.items()}
        return status(document, boards, monotonic(), show_queries=False)

    def _read(self) -> tuple[int, dict[str, Any]] | None:
        """Return the latest document with its number; it is parsed once."""
        if self._parsed is not None and self._parsed[0] == self._bulletin.number & ~1:
            return self._parsed
        edition = self._bulletin.read()
        if edition is not None:
            self._parsed = edition.number, json.loads(edition.document)
            for name, pool in self._parsed[1]["pools"].items():
                self._listed.update((name, generation) for generation in pool["generations"])
        return self._parsed

    def _drop_gone(self) -> None:
        """Forget the scoreboards of generations that are gone."""
        assert self._parsed is not None
        pools = self._parsed[1]["pools"]
        living = {(name, generation) for name, pool in pools.items() for generation in pool["generations"]}
        now = monotonic()
        for key in [key for key in self._held if key not in living]:
            if key in self._listed or now - self._held[key].since > UNLISTED_S:
                del self._held[key]
        self._listed &= living
