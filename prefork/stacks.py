"""Stacks of threads that still run, as text: innermost call last, and what the application's author wrote is marked.

Two sources: the interpreter's own frames, and what ``faulthandler`` writes when C code holds the interpreter lock.
Used in workers and in the master. Imports nothing while it works and takes no lock: it looks at a thread that is
stuck, maybe in an import.
"""

from __future__ import annotations

import os
import sys
from types import FrameType

from prefork.last_words import application_stack
from prefork.tracebacks import is_machinery, is_ours

_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = ("/site-packages/", "/dist-packages/")
MOST_FRAMES = 100
_SOURCE_BYTES = 1 << 20


def stack_of_thread(ident: int) -> str:
    """Return the stack of a thread of this process by its ``threading.get_ident()``; "" if it has none."""
    frames = _frames(ident)  # all of them first: reading a file lets the thread go on
    lines = ["  ..."] if len(frames) > MOST_FRAMES else []
    for file, number, name in reversed(frames[:MOST_FRAMES]):
        lines.append(marked(file, f'File "{file}", line {number}, in {name}'))
        if source := _source(file, number):
            lines.append(f"      {source}")
    return "\n".join(lines)


def _frames(ident: int) -> list[tuple[str, int, str]]:
    """Return file, line and name of each call, innermost first, up to where prefork called the application."""
    found: list[tuple[str, int, str]] = []
    in_application = False
    frame: FrameType | None = sys._current_frames().get(ident)
    while frame is not None and len(found) <= MOST_FRAMES:
        file = frame.f_code.co_filename
        if in_application and is_ours(file):
            break
        in_application = in_application or not is_machinery(file)
        found.append((file, frame.f_lineno or 0, frame.f_code.co_name))
        frame = frame.f_back
    return found


def stack_of_dump(text: str) -> str:
    """Return what ``faulthandler`` wrote in the same form; of several threads each has a heading."""
    threads: list[list[str]] = []
    for line in application_stack(text).splitlines():
        if line.endswith("(most recent call first):"):
            threads.append([])
        elif threads:
            file = line.partition('File "')[2].partition('"')[0]
            threads[-1].append(marked(file, line.strip()))
    if len(threads) == 1:
        return "\n".join(reversed(threads[0]))
    return "\n".join(f"Thread {n}:\n" + "\n".join(reversed(frames)) for n, frames in enumerate(threads, 1))


def is_in_application(stack: str) -> bool:
    """Tell whether a thread of such a text runs the application's own code, and has not just come through it."""
    inside = False
    for line in stack.splitlines():
        if line.startswith("Thread "):
            if inside:
                break
        elif is_ours(line.partition('File "')[2].partition('"')[0]):
            inside = False
        else:
            inside = inside or line.startswith("> ")
    return inside


def marked(file: str, line: str) -> str:
    """Return the line of a frame, with a mark if it is the application's own code."""
    return f"{'> ' if is_application(file) else '  '}{line}"


def is_application(file: str) -> bool:
    """Tell whether a frame is neither of prefork, nor of the standard library, nor of an installed package."""
    installed = any(part in file for part in _INSTALLED)
    return bool(file) and not (installed or file.startswith(("<frozen", _LIBRARY)) or is_machinery(file))


def _source(file: str, number: int) -> str:
    """Return a line of source. Not by ``linecache``, which may import."""
    try:
        with open(file, "rb") as source:
            if os.fstat(source.fileno()).st_size > _SOURCE_BYTES:
                return ""
            for count, line in enumerate(source, 1):
                if count == number:
                    return line.decode("utf-8", "replace").strip()
    except OSError:
        pass
    return ""
