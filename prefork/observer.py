"""Reads the bulletin and scoreboards from another process, so that what is shown belongs together.

What is done between two looks at the bulletin's number is only to copy cells, some microseconds for each worker: so
even a server whose workers die all the time is seen. Used by the admin process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any, NamedTuple

from prefork.bulletin import Bulletin
from prefork.scoreboard import Scoreboard
from prefork.status import Board, Boards

PATIENCE_S = 0.5
"""A turn of the master is much shorter; one that was suspended in the middle of a change is not waited for."""

PAUSE_S = 0.001


class Sight(NamedTuple):
    """What ``prefork.status.status`` needs."""

    document: Mapping[str, Any]
    boards: Boards

    @property
    def is_whole(self) -> bool:
        """Is the scoreboard of every worker here? Without it the totals would lack what that has counted."""
        return all(
            (name, worker["generation"]) in self.boards
            for name, pool in self.document["pools"].items()
            for worker in pool["workers"]
        )


class Observer:
    """One reader; not for several threads at once."""

    def __init__(self, bulletin: Bulletin) -> None:
        self._bulletin = bulletin
        self._number = 0
        self._document: Mapping[str, Any] | None = None

    def document(self) -> Mapping[str, Any] | None:
        """Return what the master has published last, None before the first time; it is not to be changed."""
        if self._document is None or self._number != self._bulletin.number & ~1:
            edition = self._bulletin.read()
            if edition is not None:
                self._number, self._document = edition.number, json.loads(edition.document)
        return self._document

    def look(
        self, boards: Mapping[tuple[str, int], Scoreboard], patience_s: float = PATIENCE_S
    ) -> Sight | None:
        """Return the document with copies of the cells that it speaks of; None if they cannot be had in time."""
        give_up = monotonic() + patience_s
        while True:
            document = self.document()
            if document is not None:
                copies = _copies(document, boards)
                if self._bulletin.number == self._number:
                    return Sight(document, copies)
            if monotonic() >= give_up:
                return None
            sleep(PAUSE_S)


def _copies(
    document: Mapping[str, Any], boards: Mapping[tuple[str, int], Scoreboard]
) -> dict[tuple[str, int], Board]:
    wanted: dict[tuple[str, int], list[int]] = {}
    for name, pool in document["pools"].items():
        for generation in pool["generations"]:
            wanted[name, generation] = []  # whether it has workers or not, it has bounds of buckets
        for worker in pool["workers"]:
            wanted.setdefault((name, worker["generation"]), []).append(worker["cell"])
    return {key: boards[key].snapshot(indices) for key, indices in wanted.items() if key in boards}
