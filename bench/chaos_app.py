"""The application that chaos is made with: quick, slow, greedy, and deadly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

hoard: list[bytearray] = []


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Do what the path says."""
    what, _, amount = environ["PATH_INFO"][1:].partition("/")
    match what:
        case "ms":
            time.sleep(int(amount) / 1000)
        case "hog":
            hoard.append(bytearray(os.urandom(1 << 20)) * int(amount))
        case "exit":
            os._exit(7)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
    body = b"%d %d" % (os.getpid(), len(environ["wsgi.input"].read()))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


def worker_gone(argument: object) -> None:
    """The hook of that name, so that helpers take part."""


def nothing(argument: object) -> None:
    raise RuntimeError("a hook that fails")
