"""Last words: the Python stack that a child writes while it dies, kept apart for each child.

The master makes a file in memory for each mold and worker, whose ``faulthandler`` writes to it: at SIGABRT, by
which the master ends what is overdue, and when C code crashes; and at ``TELL``, by which the master asks a living
worker that cannot speak for itself, since C code holds its interpreter lock. A dying process writes its stack piece
by piece, so that in one log those of several would be mixed. The master reads the file when it has reaped the
child, and trusts nothing in it: it is cut, decoded and escaped like all text of an application. Used by every
process.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal

from prefork.tracebacks import is_machinery, is_ours

LIMIT_BYTES = 16 * 1024

TELL = signal.SIGRTMAX - 2
"""The signal at which a child writes the stacks of its threads, and goes on."""

_DEATH = "Fatal Python error:"
"""What ``faulthandler`` begins with when the process dies."""

_FRAME = re.compile(r'  File "(?P<file>.*)", line \d+ in ')
_GATEWAY = os.sep + os.path.join("prefork", "worker", "gateway.py")
"""The frame from which the application is called; it is not among those of a very deep stack."""
_THREAD = re.compile(r"(?P<which>Current thread|Thread) 0x[0-9a-f]+.* \(most recent call first\):")


class LastWords:
    """The master's side: a file for one child, to be closed when the child is gone."""

    def __init__(self, fd: int | None = None) -> None:
        """Make the file, or take over ``fd``, which an older version of this process has made."""
        self.fd = os.memfd_create("prefork-last-words", os.MFD_CLOEXEC) if fd is None else fd

    def read(self) -> str:
        """Return the stack at death, innermost call first, without prefork's own frames below it; "" if there is none.

        Whoever was stopped while it was asked at ``TELL`` has answered when nobody listened any more: that is left out.
        """
        text = self.raw()
        begin = text.find(_DEATH)
        return "" if begin < 0 else application_stack(text[begin:])

    def raw(self) -> str:
        """Return what the child has written so far."""
        return os.pread(self.fd, LIMIT_BYTES, 0).decode(errors="replace")

    def forget(self) -> None:
        """Drop what was written. The child goes on writing at the beginning: the two share one offset."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)

    def close(self) -> None:
        os.close(self.fd)


def write_to(fd: int) -> None:
    """Have this process write its last words to ``fd``."""
    faulthandler.enable(fd)
    faulthandler.register(TELL, file=fd, chain=False)


def application_stack(text: str) -> str:
    """Shorten what ``faulthandler`` wrote to what an application's author needs.

    Of each thread that runs application code, the part from where prefork called it inwards.
    """
    kept: list[str] = []
    imports: list[str] = []
    in_application = cut = False
    for line in request_stacks(text).splitlines():
        if not line or line.startswith(("Extension modules:", _DEATH)):
            continue
        frame = _FRAME.match(line)
        if thread := _THREAD.fullmatch(line):
            imports, in_application, cut = [], False, False
            kept.append(f"{thread['which']} (most recent call first):")
        elif cut:
            continue
        elif frame and in_application and is_ours(frame["file"]):
            cut = True
        elif frame and in_application and is_machinery(frame["file"]):
            imports.append(line)  # told only if it was the application that imported
        else:
            kept += [*imports, line]
            imports = []
            in_application = in_application or (frame is not None and not is_machinery(frame["file"]))
    return "\n".join(kept)


def request_stacks(text: str) -> str:
    """Return the part of what ``faulthandler`` wrote about threads that may be in the application; all if none may.

    The others wait in prefork's own code: its loop, the steward, idle application threads.
    """
    threads: list[list[str]] = []
    for line in text.splitlines():
        if _THREAD.fullmatch(line):
            threads.append([])
        if threads and line:
            threads[-1].append(line)
    busy = ["\n".join(lines) for lines in threads if _may_be_in_application(lines[1:])]
    return "\n".join(busy) if busy else text


def _may_be_in_application(lines: list[str]) -> bool:
    files = [frame["file"] for line in lines if (frame := _FRAME.match(line))]
    return bool(files) and (not is_ours(files[0]) or any(file.endswith(_GATEWAY) for file in files))
