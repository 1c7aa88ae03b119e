"""The keyboard: single keys from a terminal, without waiting for Enter.

Runs in a command.
"""

from __future__ import annotations

import os
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x1b": "esc",
}
_MOST_BYTES = 1024


@contextmanager
def single_keys(fd: int) -> Iterator[None]:
    """Have a terminal give each key at once and show none; as it was, afterwards. Ctrl-C still interrupts."""
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def read_keys(fd: int, wait_s: float) -> list[str] | None:
    """Return the keys that were pressed, after at most ``wait_s``; None at the end of the input."""
    readable, _, _ = select.select([fd], [], [], max(0.0, wait_s))
    if not readable:
        return []
    data = os.read(fd, _MOST_BYTES)
    return split_keys(data.decode("utf-8", "replace")) if data else None


def split_keys(text: str) -> list[str]:
    """Return the name of each key in what a terminal sent; keys that are not known are left out."""
    keys = []
    while text:
        name = next((name for name in sorted(_NAMES, key=len, reverse=True) if text.startswith(name)), None)
        if name == "\x1b" and text[1:2] in ("[", "O"):
            end = next((at for at in range(2, len(text)) if "@" <= text[at] <= "~"), len(text) - 1)
            text = text[end + 1 :]  # a sequence of some other key
            continue
        if name is None:
            if text[0].isprintable():
                keys.append(text[0])
            text = text[1:]
        else:
            keys.append(_NAMES[name])
            text = text[len(name) :]
    return keys
