"""The loop of ``top``: ask the server, show what it says, take keys; until ``q`` or Ctrl-C.

Runs in a command.
"""

from __future__ import annotations

import sys
from time import monotonic
from typing import Protocol

from prefork.cli.top.history import History, Status
from prefork.cli.top.keys import read_keys, single_keys
from prefork.cli.top.layout import layout
from prefork.cli.top.screen import Screen, open_screen
from prefork.cli.top.view import Act, View
from prefork.errors import ExitStatus, PreforkError, UsageError

EVERY_S = 1.0


class Server(Protocol):
    """A running server. Each of these raises ``PreforkError``."""

    def status(self) -> Status:
        """Return its answer to ``status``."""

    def stacks(self, slot: str) -> str:
        """Return the stacks of a worker, as text."""

    def recycle(self, slot: str) -> None:
        """Order a successor for a worker, and do not wait for it."""


def top(server: Server) -> int:
    """Show the server live. Raises ``PreforkError`` if it does not answer at first."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal; use prefork status, or prefork status --json in scripts")
    live = Live(server)
    live.ask()
    if live.problem:
        raise live.problem
    fd = sys.stdin.fileno()
    try:
        with open_screen() as screen, single_keys(fd):
            live.run(screen, fd)
    except KeyboardInterrupt:
        pass
    return ExitStatus.OK


class Live:
    """What is known of the server, and what of it is to be seen."""

    def __init__(self, server: Server) -> None:
        self.problem: PreforkError | None = None
        self._server = server
        self._history = History()
        self._view = View()

    def ask(self) -> None:
        """Ask the server for its status. That it does not answer is shown, and may pass."""
        try:
            self._history.add(monotonic(), self._server.status())
            self.problem = None
        except PreforkError as error:
            self.problem = error

    def run(self, screen: Screen, fd: int) -> None:
        """Show and ask, until the user has seen enough."""
        next_look = monotonic() + EVERY_S
        while True:
            self._show(screen)
            keys = read_keys(fd, next_look - monotonic())
            if keys is None or not all(self._press(key) for key in keys):
                return
            if monotonic() >= next_look:
                self.ask()
                next_look = monotonic() + EVERY_S

    def _show(self, screen: Screen) -> None:
        problem = str(self.problem).partition("\n")[0] if self.problem else ""
        screen.show(layout(self._history, self._view, *screen.size, monotonic(), problem))

    def _press(self, key: str) -> bool:
        """Take a key; return whether to go on."""
        view = self._view
        act = view.press(key, self._history)
        row = view.selected_row(self._history)
        try:
            if act is Act.STACKS and row:
                view.show(self._server.stacks(row[1]["slot"]))
            elif act is Act.RECYCLE and row:
                self._server.recycle(row[1]["slot"])
                view.note = f"{row[1]['slot']} is being recycled"
        except PreforkError as error:
            view.note = str(error).partition("\n")[0]
        return act is not Act.QUIT
