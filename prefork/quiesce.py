"""The final stop of a listener: no new connection, and none lost that its client already believes in.

Closing a listener resets every connection in its queue, and accepting until the queue is empty before that
still loses those whose handshake completes in between. So the kernel is first told to refuse, then the queue
is emptied, then the listener is closed. Runs in the master; workers do the accepting, and all of it when their
master was killed.
"""

from __future__ import annotations

import socket

SO_BINDTOIFINDEX = 62
"""Not in Python's socket module; Linux 5.1, without privileges since 5.7. See socket(7)."""

NO_INTERFACE = 0x7FFFFFFF

HANDSHAKES_S = 0.05


def quiesce(sock: socket.socket, address: str) -> str | None:
    """Make the kernel refuse new connections; return None, or why it could not (a line for the log).

    The socket is shared, so this holds in every process at once. Then workers accept: on a unix socket until
    ``OSError`` with EINVAL, on TCP until ``BlockingIOError`` and that for ``HANDSHAKES_S`` after this call,
    since a handshake that had begun still needs a round trip to end in the queue.
    Not for a listener that was inherited by the master: its owner goes on queueing for our successor.
    """
    try:
        if sock.family == socket.AF_UNIX:
            sock.shutdown(socket.SHUT_RD)
        else:
            # Bound to an interface that does not exist, the listener matches no SYN: connects are refused
            # at once. Handshakes under way complete, they are found by an entry of their own.
            sock.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)
    except OSError as error:
        return (
            f"{address}: this system cannot refuse new connections before the queue is empty "
            f"({error.strerror}), so a client that connects at the moment of the stop may be reset"
        )
    return None
