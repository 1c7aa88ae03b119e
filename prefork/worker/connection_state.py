"""The states of a client connection, and who owns it in each of them; see ``connection``.

The owner alone may touch the socket and the fields:

============  ==========  ===================================================  ====================
state         owner       waits for                                            deadline
============  ==========  ===================================================  ====================
INTRODUCTION  loop        the PROXY header, see ``introduction``               ``head``
HANDSHAKE     loop        the end of the TLS handshake                         ``head``
IDLE          loop        the first byte of a request                          ``keep_alive``
HEAD          loop        the rest of a head; holds its raw bytes, no parser   ``head``
BODY          loop        the rest of a body; each byte is progress            ``body``
NEXT          loop        its turn: the next request was pipelined             none
WAITING       loop        a free thread: the request is complete               none
RUNNING       the thread  the application                                      the request's own
              it runs in
FLUSHING      loop        a slow reader; each byte taken is progress           ``send``
LINGERING     loop        the client's end-of-file, after our own              ``linger``
CLOSED        nobody
============  ==========  ===================================================  ====================

The loop gives a connection away in one place (``Connection.run``) and gets it back in one place
(``Connection.finish``). With one thread the loop is inside the application meanwhile. With several it goes
on: when a RUNNING connection becomes readable, or is hung up, the loop takes it out of the epoll instead of
touching it (or it would be told again and again), and ``finish`` puts it back. One field may cross:
``request.keep_alive``, which a drain turns off while the application runs; nothing depends on who is faster.

When the application goes on working and the socket has not taken all, the thread of a RUNNING connection lends what
is kept, and the way to the socket, to the background sender (``Outgoing.loan``, see ``background``), and takes it back
before it writes or aborts; ``finish`` does so for the response that has ended. Meanwhile all it may read is that
``output`` was there. What can happen then:

- *The sender is in the middle of a turn.* Taking back waits for its end; it never waits for the client.
- *It has sent all, or the client is gone.* It drops the output and watches the socket no more; the loan stands until
  it is taken back, and the next write finds ``gone``.
- *It has seen the socket ready, and the loan was taken back since.* Each loan has a lock of its own, that its end
  takes for ever. The descriptor is out of the sender's epoll by then, so that its number may be used again.
- *The application forks.* The sender may hold that lock, and be halfway through the output, in a child where it does
  not exist. Everything that is lent is gone there: the parent sends it.
- *The client takes nothing.* No deadline runs while the application works; ``send`` begins in FLUSHING.

A state changes before the call that makes it true returns to the loop, and every handler checks the state. So
an event that is older than the state, or belongs to an earlier socket of the same number, does no harm.

"The loop" is whoever has the baton: the main thread, or the steward while that one is inside the application.

In INTRODUCTION, IDLE, HEAD, NEXT and WAITING, and in BODY if its length is known, all there is to a plain
connection is what was received and the socket: it can go on in another worker, see ``sharing``.
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
    WAITING = auto()
    RUNNING = auto()
    FLUSHING = auto()
    LINGERING = auto()
    CLOSED = auto()
