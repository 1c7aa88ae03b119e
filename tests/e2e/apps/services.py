"""Services that are no web applications, and a web server that is more than its application."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import wire

from prefork.worker.http_server import HTTPServer
from prefork.worker.server import Server


class Echo(Server):
    """Answer each line with itself and the thread; every method of socketserver is overridden."""

    def get_request(self, listener: socket.socket) -> tuple[socket.socket, Any]:
        request, address = super().get_request(listener)
        request.settimeout(60)
        return request, address

    def verify_request(self, request: socket.socket, client_address: Any) -> bool:
        return not os.path.exists(os.environ["NOTES"] + "-refuse")

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        kind = client_address[0] if client_address else "unix"
        with request.makefile("rwb") as file:
            for line in file:
                if line == b"fail\n":
                    raise LookupError("asked to fail")
                if line == b"exit\n":
                    raise SystemExit(1)
                if line.startswith(b"wait "):
                    wire.pass_gate(line[5:].decode().strip())
                draining = " draining" if self.draining else ""
                file.write(f"{threading.get_native_id()} {kind}{draining} ".encode() + line)
                file.flush()

    def handle_error(self, request: socket.socket, client_address: Any) -> None:
        request.sendall(b"sorry\n")
        super().handle_error(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        try:
            request.sendall(b"bye\n")
        except OSError:
            pass
        super().shutdown_request(request)


class Site(HTTPServer):
    """A web server that serves ``application`` and counts."""

    application = staticmethod(wire.app)

    def verify_request(self, request: socket.socket, client_address: Any) -> bool:
        wire.note("verified")
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        wire.note(f"processing {request.head.target} of {client_address.address[0]}")
        super().process_request(request, client_address)


class Nothing(HTTPServer):
    """Lacks its application."""
