"""The application of the reload and mixed-load comparisons: it only waits, on import or in a request."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

BODY = b"Hello, world!\n"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]

time.sleep(float(os.environ.get("BENCH_IMPORT_S", "0")))


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer ``/ms/N`` after N milliseconds, everything else at once."""
    path = environ["PATH_INFO"]
    if path.startswith("/ms/"):
        time.sleep(int(path[4:]) / 1000)
    start_response("200 OK", list(HEADERS))
    return [BODY]
