"""What the admin process reads: the master's bulletin, and the scoreboards of all generations, as they come and go.

Runs in the admin process; asked from its application threads, told of scoreboards in the loop's thread. Nothing here
waits for another process: what cannot be had now is answered as it was before.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from threading import Lock
from time import monotonic, sleep
from typing import Any, NamedTuple

from prefork.admin.answer import NotYet
from prefork.bulletin import Bulletin
from prefork.observer import PATIENCE_S, PAUSE_S, Observer
from prefork.scoreboard import Scoreboard
from prefork.status import status

FIRST_PATIENCE_S = 2.0
"""A process that has just come has nothing of before to show, and would rather wait."""

UNLISTED_S = 30.0
"""A scoreboard may come before the document that speaks of it; one that none has spoken of for so long is gone."""

Key = tuple[str, int]
"""Pool and generation."""


class _Held(NamedTuple):
    board: Scoreboard
    since: float


class Reading:
    """The ``Source`` of a real server."""

    def __init__(self, bulletin: Bulletin, lifeline: int, metrics_folder: str | None = None) -> None:
        self.metrics_folder = metrics_folder
        self._observer = Observer(bulletin)
        self._lifeline = select.poll()
        self._lifeline.register(lifeline, select.POLLIN)
        self._held: dict[Key, _Held] = {}
        self._was_listed: set[Key] = set()
        self._lock = Lock()
        """What one client has seen is never followed by something older."""
        self._last: dict[str, Any] | None = None

    def add_board(self, pool: str, generation: int, fd: int) -> None:
        """Map the scoreboard of a generation; ``fd`` is closed. Raises ``ValueError`` and ``OSError``."""
        try:
            board = Scoreboard(fd, -1)
        finally:
            os.close(fd)
        with self._lock:
            self._held[pool, generation] = _Held(board, monotonic())
            self._drop_gone(self._observer.document())

    def is_master_alive(self) -> bool:
        return not self._lifeline.poll(0)

    def document(self) -> Mapping[str, Any] | None:
        """Return what the master has published last; None if it has not yet."""
        with self._lock:
            return self._observer.document()

    def status(self) -> dict[str, Any]:
        """Return the status without query strings; if it cannot be had now, that of the last time.

        Raises ``NotYet`` if there is none: one without its cells would have counters that fall.
        """
        began = monotonic()
        while True:
            with self._lock:  # between looks, a scoreboard may come
                patience_s = FIRST_PATIENCE_S if self._last is None else PATIENCE_S
                is_last = monotonic() - began >= patience_s or self._observer.document() is None
                sight = self._observer.look({key: held.board for key, held in self._held.items()}, 0.0)
                if sight is not None and (sight.is_whole or is_last):
                    self._last = status(sight.document, sight.boards, monotonic(), show_queries=False)
                    self._drop_gone(sight.document)
                    return self._last
                if is_last:
                    if self._last is None:
                        raise NotYet
                    return self._last
            sleep(PAUSE_S)

    def _drop_gone(self, document: Mapping[str, Any] | None) -> None:
        """Forget the scoreboards of generations that are gone."""
        if document is None:
            return
        listed = {
            (name, number) for name, pool in document["pools"].items() for number in pool["generations"]
        }
        now = monotonic()
        for key in self._held.keys() - listed:
            if key in self._was_listed or now - self._held[key].since > UNLISTED_S:
                del self._held[key]
        self._was_listed = listed
