"""Tracebacks of application code as its author wants to see them: from the first frame of their own.

Runs wherever application code may run.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import traceback
from collections.abc import Iterator

_OUR_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_MACHINERY = (importlib.__file__, importlib.util.__file__)


def application_traceback(error: BaseException) -> str:
    """Format an exception from the application's first frame: without our frames and those of the import."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    for link in _chain(told):
        link.stack = traceback.StackSummary.from_list(
            [frame for frame in link.stack if not is_machinery(frame.filename)]
        )
    # A syntax error in the module itself has no frames, and a heading without any would mislead.
    lines = told.format() if told.stack else told.format_exception_only()
    return "".join(lines).rstrip("\n")


def in_application(error: BaseException) -> bool:
    """Tell whether the application's own code was running when the error was raised."""
    return any(
        not is_machinery(frame.f_code.co_filename) for frame, _line in traceback.walk_tb(error.__traceback__)
    )


def _chain(told: traceback.TracebackException | None) -> Iterator[traceback.TracebackException]:
    if told is not None:
        yield told
        yield from _chain(told.__cause__)
        yield from _chain(told.__context__)
        for member in told.exceptions or ():
            yield from _chain(member)


def is_ours(filename: str) -> bool:
    """Tell whether a frame is of prefork's own code."""
    return filename.startswith(_OUR_FOLDER)


def is_machinery(filename: str) -> bool:
    """Tell whether a frame is of prefork or of the import system."""
    return is_ours(filename) or filename.startswith("<frozen importlib") or filename in _MACHINERY
