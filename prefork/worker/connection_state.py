"""The states of a client connection, and who owns it in each of them; see ``connection``.

The owner alone may touch the socket and the fields:

============  ==========  ===================================================  =============
The loop gives a connection away in one place (``Connection._run``) and gets it back in one place
(``Connection.finish``). With one thread the loop is inside the application meanwhile. With several it goes
on: when a RUNNING connection becomes readable, or is hung up, the loop takes it out of the epoll instead of
touching it (or it would be told again and again), and ``finish`` puts it back. One field may cross:
``request.keep_alive``, which a drain turns off while the application runs; nothing depends on who is faster.

A state changes before the call that makes it true returns to the loop, and every handler checks the state. So
an event that is older than the state, or belongs to an earlier socket of the same number, does no harm.

In states IDLE and HEAD all there is to the client is ``raw`` and the socket: it could be served by another
worker.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """See the table at the top of the module."""

    INTRODUCTION = auto()
    HANDSHAKE = auto()
    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    NEXT = auto()
    RUNNING = auto()
    FLUSHING = auto()
    LINGERING = auto()
    CLOSED = auto()
