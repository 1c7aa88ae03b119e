"""What the serve loop and the gateway hand each other for one request; runs only in a worker.

The serve loop reads and writes the connection, the gateway runs the application; they meet at these
types and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BufferedReader, BytesIO
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from prefork.http.head import Head

Environ = dict[str, Any]


class ClientGone(ConnectionError):
    """The client closed or reset the connection, or was cut off because it did not read."""


class FileBody(Protocol):
    """The body of a request that came in pieces: ``prefork.worker.body.IncomingBody``."""

    def __len__(self) -> int: ...

    def reader(self) -> BytesIO | BufferedReader:
        """Return a seekable file at the start of the body."""


class Request:
    """One complete request. A connection may own one and fill it again for each request."""

    __slots__ = ("base", "body", "head", "keep_alive")

    head: Head
    body: bytes | FileBody
    """The complete body, with the chunks already taken off. A file ends with its request."""
    base: Environ
    """The connection's part of the environ, from ``Gateway.connection_environ``: copied, never changed."""
    keep_alive: bool
    """May the server keep the connection? Read when the response's head is sent, so a drain that begins
    while the application runs still becomes ``Connection: close``."""

    def __init__(self, head: Head, body: bytes | FileBody, base: Environ, keep_alive: bool = True) -> None:
        self.head = head
        self.body = body
        self.base = base
        self.keep_alive = keep_alive


class Writer(Protocol):
    """The way back to the client."""

    began_ns: int
    """Not 0: the exchange takes longer than the application; see ``prefork.worker.outgoing``."""

    def end_application(self, start_ns: int) -> None:
        """Take note that the application is done with the request that was given to it at ``start_ns``: its exchange
        is to be counted when it is over. To be called if ``began_ns`` is not 0."""

    def write(self, data: bytes | Sequence[bytes], last: bool = False) -> None:
        """Send ``data`` (a sequence is sent as if joined), or keep it to be sent from the loop.

        ``last``: the connection is about to be closed, so that the data may wait for that.
        May block while the buffer is full and the client reads. Raises ``ClientGone``.
        """

    def write_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        """Send ``head`` and then ``count`` bytes of a file, from the loop as far as the client is slow.

        ``fd`` may be closed when this returns. Raises ``ClientGone``.
        """

    def send_meanwhile(self) -> None:
        """The application goes on working: send what was kept, without it. Never raises, never blocks."""

    def abort(self) -> None:
        """Reset the connection, so that the client can tell: a plain end looks complete on HTTP/1.0.

        What was written and not sent is dropped. Never raises. ``Gateway.respond`` then returns False.
        """


class ThreadCell(Protocol):
    """The scoreboard cell of the thread that runs the application."""

    current: Any
    """The ``Response`` to the request that runs, None if none does. To be set before ``enter``."""

    ident: int
    """``threading.get_ident()`` of the thread."""

    def enter(self, request_line: bytes, deadline_ns: int = 0, slow_ns: int = 0) -> int:
        """Publish the request; return its start in monotonic ns."""

    def leave(
        self, method: str, status: int, start_ns: int, sent_bytes: int, has_exchange: bool = False
    ) -> int:
        """Count the request; return the elapsed ns. ``has_exchange``: its exchange takes longer, see ``Writer``."""

    def end_slow(self, start_ns: int) -> None:
        """Count the request as slow, if it was not yet."""

    def pulse(self) -> tuple[int, int]:
        """Return what is another value whenever a request has begun or ended; first the start of one that runs."""

    def extend(self, by_ns: int) -> None:
        """Move the deadline of the request that runs, if it has one; only its own thread may do that."""


class WatchedCell(ThreadCell, Protocol):
    """What the lookout reads and writes of it."""

    def limits(self) -> tuple[int, int, int]:
        """Return start, deadline and slow instant as ``enter`` wrote them; the start is 0 if nothing runs."""

    def identify(self, start_ns: int, request_id: str) -> None:
        """Show the id of the request of this start."""

    def told(self, start_ns: int, again_ns: int) -> None:
        """Tell the master that the slow request of this start was reported, and when it will be again."""

    def count_late(self, start_ns: int) -> None:
        """Count that the deadline of the request of this start has passed."""

    def excuse(self, start_ns: int, by_ns: int) -> None:
        """Tell the master that the request of this start was suspended with its worker."""

    def end(self, start_ns: int, status: int) -> None:
        """Tell the master that the worker has dealt with the deadline of the request of this start, and what its
        client got."""
