"""The gateway to the application: PEP 3333 in full; runs only in a worker."""

from __future__ import annotations

from prefork.worker.exchange import Environ, Request, ThreadCell, Writer


class Gateway:
    """Runs the application for complete requests and frames what it answers."""

    def connection_environ(
        self, server_name: str, server_port: str, remote_addr: str, remote_port: str, scheme: str = "http"
    ) -> Environ:
        """Return the environ that all requests of one connection share. Empty strings: not known."""
        raise NotImplementedError

    def respond(self, request: Request, writer: Writer, cell: ThreadCell) -> bool:
        """Run the application for ``request``; return whether the connection may be kept."""
        raise NotImplementedError

    def refuse(self, status: int, reason: str) -> bytes:
        """Return the complete answer for a request that does not reach the application; close after it."""
        raise NotImplementedError
