"""The environ's fixed parts and the objects in it (PEP 3333); runs only in a worker."""

from __future__ import annotations

from prefork import __version__
from prefork.log.stream import ErrorStream
from prefork.worker.exchange import Environ
from prefork.worker.files import FileWrapper


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
