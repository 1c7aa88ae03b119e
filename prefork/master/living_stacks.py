"""The stack of a worker that lives and cannot tell it: asked for by a signal, read from its last words.

Runs in the master, which does not wait: it looks again a little later.
"""

from __future__ import annotations

from collections.abc import Callable

from prefork.last_words import TELL
from prefork.master.loop import Loop
from prefork.master.worker_link import WorkerLink
from prefork.stacks import stack_of_dump

LOOK_S = 0.05
MOST_LOOKS = 20
"""A process that is stopped, or stuck in the kernel, writes nothing."""


def ask_stack(loop: Loop, link: WorkerLink, then: Callable[[str], None]) -> None:
    """Call ``then`` with the stack of what the worker runs, innermost call last; with "" if it does not write one."""
    if link.process is None:
        then("")
        return
    link.asking.append(then)
    if len(link.asking) > 1:
        return  # two answers would be mixed in one file
    link.last_words.forget()
    link.process.signal(TELL)
    loop.call_later(LOOK_S, lambda: _look(loop, link, "", 1))


def _look(loop: Loop, link: WorkerLink, before: str, looks: int) -> None:
    if link.is_closed:
        return
    text = link.last_words.raw()
    # It writes piece by piece: what has not grown since the last look is complete.
    if (text and text == before) or looks == MOST_LOOKS:
        link.last_words.forget()
        askers, link.asking = link.asking, []
        for then in askers:
            then(stack_of_dump(text))
    else:
        loop.call_later(LOOK_S, lambda: _look(loop, link, text, looks + 1))
