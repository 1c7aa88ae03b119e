"""Shows lines in a terminal: with rich, where it is installed (``pip install "prefork[top]"``), else plainly.

Runs in a command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from prefork.cli.top.layout import Line, plain

CLEAR = "\x1b[H\x1b[2J"

RICH_STYLES = {
    "": "",
    "dim": "dim",
    "head": "bold",
    "good": "green",
    "busy": "cyan",
    "warn": "bold yellow",
    "bad": "bold red",
    "selected": "reverse",
}


class Screen(Protocol):
    """Somewhere to show lines; ``size`` is (columns, lines) now, for a terminal may be resized."""

    @property
    def size(self) -> tuple[int, int]: ...

    def show(self, lines: Sequence[Line]) -> None:
        """Replace what is shown."""


def open_screen() -> AbstractContextManager[Screen]:
    """Return the best screen there is."""
    try:
        import rich.console  # noqa: F401 – an extra
    except ImportError:
        return _plain_screen()
    return _rich_screen()


class PlainScreen:
    """A screen that is written anew each time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def size(self) -> tuple[int, int]:
        return os.get_terminal_size(self._stream.fileno())

    def show(self, lines: Sequence[Line]) -> None:
        self._stream.write(CLEAR + plain(lines, self.size[0]))
        self._stream.flush()


@contextmanager
def _plain_screen() -> Iterator[PlainScreen]:
    try:
        yield PlainScreen(sys.stdout)
    finally:
        print()


@contextmanager
def _rich_screen() -> Iterator[Screen]:
    from rich.console import Console, ConsoleDimensions, Group
    from rich.live import Live
    from rich.text import Text

    console = Console()

    class RichScreen:
        @property
        def size(self) -> tuple[int, int]:
            return os.get_terminal_size(sys.stdout.fileno())

        def show(self, lines: Sequence[Line]) -> None:
            texts = (
                Text.assemble(
                    *((text, RICH_STYLES[style]) for text, style in line), no_wrap=True, overflow="crop"
                )
                for line in lines
            )
            # Not what COLUMNS may have said at the start: a terminal is resized.
            console.size = ConsoleDimensions(*self.size)
            live.update(Group(*texts), refresh=True)

    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield RichScreen()
