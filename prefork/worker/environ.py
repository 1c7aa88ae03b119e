"""The environ's fixed parts and the objects in it (PEP 3333); runs only in a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from prefork import __version__
from prefork.log.stream import ErrorStream
from prefork.worker.exchange import Environ


def base_environ(errors: ErrorStream, root_path: str, multithread: bool) -> Environ:
    """Return what is the same in all requests of a worker."""
    return {
        "SCRIPT_NAME": root_path.encode().decode("latin-1"),
        "SERVER_SOFTWARE": f"prefork/{__version__}",
        "wsgi.version": (1, 0),
        "wsgi.errors": errors,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
    }


def connection_environ(
    base: Environ, server_name: str, server_port: str, remote_addr: str, remote_port: str, scheme: str
) -> Environ:
    """Return ``base`` and what is the same in all requests of one connection."""
    environ = base.copy()
    environ["wsgi.url_scheme"] = scheme
    # PEP 3333: never empty. A unix socket has neither.
    environ["SERVER_NAME"] = server_name or "localhost"
    environ["SERVER_PORT"] = server_port or ("443" if scheme == "https" else "80")
    environ["REMOTE_ADDR"] = remote_addr
    if remote_port:
        environ["REMOTE_PORT"] = remote_port
    return environ


class FileWrapper:
    """``wsgi.file_wrapper``: iterates over a file in blocks."""

    def __init__(self, filelike: IO[bytes], block_size: int = 64 * 1024) -> None:
        self.filelike = filelike
        self.block_size = block_size
        close: Any = getattr(filelike, "close", None)
        if close is not None:
            self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.filelike.read(self.block_size), b"")
