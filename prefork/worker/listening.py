"""A listener as a worker has it: a socket that is quick to accept."""

from __future__ import annotations

import socket


class ListeningSocket(socket.socket):
    """Knows its family and type.

    ``accept`` asks for both for each connection, and ``socket.socket`` looks up their enum members each time: that
    takes longer than the system call.
    """

    __slots__ = ("family", "type")

    family: socket.AddressFamily
    type: socket.SocketKind

    def __init__(self, fd: int) -> None:
        super().__init__(fileno=fd)
        self.family = super().family
        self.type = super().type
