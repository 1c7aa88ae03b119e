"""What the user of ``top`` has chosen to see, and what each key does about it.

Pure. Runs in a command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from prefork.cli.top.history import History, Status

Row = tuple[str, Status]
"""A pool's name and one of its workers."""


class Act(Enum):
    """What a key asks for beyond the view itself."""

    NONE = "none"
    QUIT = "quit"
    STACKS = "stacks"
    RECYCLE = "recycle"


class Mode(Enum):
    TABLE = "table"
    FILTER = "filter"
    """keys are letters of the filter"""
    TEXT = "text"
    """stacks or the help are shown"""
    CONFIRM = "confirm"
    """is the selected worker to be recycled?"""


def _elapsed_s(row: Row, _: History) -> float:
    current = row[1]["current"]
    return -(current["elapsed_s"] if current else 0.0)


def _number(value: float | None) -> float:
    return -(value or 0.0)


SORTS: dict[str, Callable[[Row, History], float]] = {
    "slot": lambda row, history: 0.0,
    "request": _elapsed_s,
    "req/s": lambda row, history: _number(history.work(*row).requests_per_s),
    "cpu": lambda row, history: _number(history.work(*row).cpu_share),
    "memory": lambda row, history: _number(row[1]["uss_bytes"]),
    "age": lambda row, history: _number(row[1]["uptime_s"]),
}
"""Orders of the workers, the first one theirs in the answer; each puts what stands out on top."""

HELP = """\
Keys
    up, down, k, j   select a worker
    s                sort by: slot, request, req/s, cpu, memory, age
    /                filter workers by slot, state, pid or request; Enter keeps it, Esc drops it
    t, Enter         stacks of the selected worker
    r                recycle the selected worker: a successor first, then it drains
    q                quit

What is shown
    P50 P95 P99      time in the application, of the requests of the last minute
    CPU              of one core
    USS              memory that the worker shares with nobody; PSS adds its share of the rest
    MOVED            connections that were handed over to another worker
"""


@dataclass(slots=True)
class View:
    """What is to be seen; ``press`` changes it."""

    sort: str = "slot"
    filter: str = ""
    selected: str | None = None
    mode: Mode = Mode.TABLE
    text: list[str] = field(default_factory=list)
    """What is shown in ``Mode.TEXT``."""
    scrolled: int = 0
    note: str = ""
    """One line at the bottom: what came of the last key."""

    def rows(self, history: History) -> list[Row]:
        """Return the workers to show, in order."""
        status = history.status
        if status is None:
            return []
        rows = [(name, worker) for name, pool in status["pools"].items() for worker in pool["workers"]]
        return sorted(filter(self._passes, rows), key=lambda row: SORTS[self.sort](row, history))

    def selected_row(self, history: History) -> Row | None:
        """Return the selected worker, the first one if none is or it is not shown any more."""
        rows = self.rows(history)
        return next((row for row in rows if _key(row) == self.selected), rows[0] if rows else None)

    def show(self, text: str) -> None:
        """Show a text instead of the table."""
        self.mode, self.text, self.scrolled = Mode.TEXT, text.splitlines(), 0

    def press(self, key: str, history: History) -> Act:
        """Take a key: a character, or a name such as ``up`` or ``enter``."""
        self.note = ""
        match self.mode:
            case Mode.FILTER:
                self._type(key)
            case Mode.TEXT:
                return self._read_on(key)
            case Mode.CONFIRM:
                self.mode = Mode.TABLE
                if key == "y":
                    return Act.RECYCLE
                self.note = "not recycled"
            case Mode.TABLE:
                return self._command(key, history)
        return Act.NONE

    def _command(self, key: str, history: History) -> Act:
        match key:
            case "q":
                return Act.QUIT
            case "up" | "k" | "down" | "j":
                self._select(-1 if key in ("up", "k") else 1, history)
            case "s":
                names = list(SORTS)
                self.sort = names[(names.index(self.sort) + 1) % len(names)]
            case "/":
                self.mode, self.filter = Mode.FILTER, ""
            case "esc":
                self.filter = ""
            case "?" | "h":
                self.show(HELP)
            case "t" | "enter" if self.selected_row(history):
                return Act.STACKS
            case "r" if self.selected_row(history):
                self._pin(history)
                self.mode = Mode.CONFIRM
        return Act.NONE

    def _type(self, key: str) -> None:
        match key:
            case "enter":
                self.mode = Mode.TABLE
            case "esc":
                self.mode, self.filter = Mode.TABLE, ""
            case "backspace":
                self.filter = self.filter[:-1]
            case _ if len(key) == 1:
                self.filter += key

    def _read_on(self, key: str) -> Act:
        match key:
            case "up" | "k":
                self.scrolled = max(0, self.scrolled - 1)
            case "down" | "j" | " ":
                self.scrolled = min(max(0, len(self.text) - 1), self.scrolled + 1)
            case "q" | "esc" | "enter" | "t" | "?" | "h":
                self.mode = Mode.TABLE
        return Act.NONE

    def _select(self, step: int, history: History) -> None:
        keys = [_key(row) for row in self.rows(history)]
        if keys:
            at = keys.index(self.selected) if self.selected in keys else 0
            self.selected = keys[max(0, min(len(keys) - 1, at + step))]

    def _pin(self, history: History) -> None:
        """Let what is selected not change while the user is asked about it."""
        row = self.selected_row(history)
        self.selected = _key(row) if row else None

    def _passes(self, row: Row) -> bool:
        worker = row[1]
        current = worker["current"] or {}
        words: Sequence[object] = (
            worker["slot"],
            worker["state"],
            worker["pid"],
            current.get("method"),
            current.get("target"),
            current.get("request_id"),
        )
        return self.filter.lower() in " ".join(str(word) for word in words if word is not None).lower()


def _key(row: Row) -> str:
    """A worker for as long as it lives: two generations may share a slot."""
    return f"{row[1]['slot']} {row[1]['pid']}"
