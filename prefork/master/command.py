"""How this process was started, and so how other code of prefork is started in its place.

Runs in the master.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_FOLDER = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""Where the code that runs here was found, by its real name: a link may lead to another version later."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line: ``interpreter`` with its options, and what prefork was told."""

    interpreter: tuple[str, ...]
    program: str
    """What ``sys.argv`` begins with."""
    arguments: tuple[str, ...]

    @classmethod
    def of_this_process(cls) -> Command:
        options = _options(sys.orig_argv, sys.argv[1:])
        return cls((sys.executable, *options), sys.argv[0], tuple(sys.argv[1:]))

    def installed(self, purpose: str, state: int) -> list[str]:
        """Return the command for the code that is installed now; ``state`` is a descriptor."""
        return [*self.interpreter, "-m", "prefork.first_stage", purpose, str(state), "", *self.arguments]

    def way_back(self) -> list[str]:
        """Return the command for the code that runs here, which lacks what follows the first stage's purpose."""
        return [*self.interpreter, "-P", os.path.join(_FOLDER, "first_stage.py")]


def _options(original: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return the interpreter's own options. Started by a script, prefork did not look into the working directory."""
    head = list(original[1 : len(original) - len(arguments)])
    if head[-2:-1] == ["-m"] or head[-2:-1] == ["-c"]:
        return head[:-2]
    return [*head[:-1], "-P"]
