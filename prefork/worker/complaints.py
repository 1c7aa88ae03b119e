"""What is said and counted of clients that are not served, or no further; runs only in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefork.worker.peers import Peers, peer_name, shown_address
from prefork.worker.surroundings import Cell, Log

if TYPE_CHECKING:
    from prefork.worker.connection import Connection
    from prefork.worker.introduction import Introduction

CAUSES = {
    **dict.fromkeys((400,), "malformed"),
    **dict.fromkeys((417, 501, 505), "unsupported"),
    **dict.fromkeys((414, 431), "head-too-large"),
    **dict.fromkeys((413,), "body-too-large"),
    **dict.fromkeys((503, 507), "no-room"),
}
"""What a request that is refused for what it is, by its status, counts as among ``figures.REFUSALS``."""


class Complaints:
    """Each is a line of the log at most, and one more in the cell's count of refusals."""

    def __init__(self, log: Log, cell: Cell, peers: Peers) -> None:
        self._log = log
        self._cell = cell
        self._peers = peers

    def note_refusal(self, connection: Connection, status: int, reason: str, cause: str = "") -> None:
        """Count and log a request that the application does not see; ``cause``: if the status does not tell."""
        self._cell.add_refused(cause or CAUSES[status])
        self._log.info(
            "request-refused",
            f"answered {status} to {shown_address(connection.address)}: {reason}",
            status=status,
        )

    def note_refused_peer(self, introduction: Introduction, reason: str) -> None:
        """Count a connection that does not introduce its client, and log it the first time from a peer."""
        self._cell.add_refused("proxy-header")
        if self._peers.is_news(peer_name(introduction.address)):
            self._log.warning(
                "proxy-header-refused",
                f"closed the connection from {shown_address(introduction.address)} to a listener with "
                f"proxy_protocol: {reason}; more of these from there are not logged",
            )

    def note_slow_reader(self, address: Any, reason: str) -> None:
        """Count and log a connection that is cut off because its client does not read the response."""
        self._cell.add_refused("slow-reader")
        self._log.info("slow-reader-cut", f"cut off {shown_address(address)}: {reason}")

    def note_tls_failure(self, connection: Connection, reason: str) -> None:
        """Count and log a connection that ends because of its TLS, mostly in the handshake."""
        self._cell.add_refused("tls")
        self._log.info("tls-failed", f"no TLS with {shown_address(connection.address)}: {reason}")
