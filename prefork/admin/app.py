"""The admin application: a table of endpoints, who may see them, and what every answer has.

Runs in the admin process. A plain WSGI application: all that it knows of the server comes from its ``Source``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from prefork.admin.access import Access
from prefork.admin.answer import UNAVAILABLE, Answer, Environ, Handler, NotYet, Source

HEADERS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Every answer has them."""


class Route(NamedTuple):
    """One endpoint: what ``admin.open`` calls it, and how it is loaded, which only the admin process does."""

    name: str
    load: Callable[[], Handler]


def _live() -> Handler:
    from prefork.admin.health import live

    return live


def _ready() -> Handler:
    from prefork.admin.health import ready

    return ready


def _status() -> Handler:
    return lambda source, environ: Answer.of_json(source.status())


def _page() -> Handler:
    from prefork.admin.page import load

    return load()


def _metrics() -> Handler:
    from prefork.admin.metrics import Metrics

    return Metrics()


ROUTES: Mapping[str, Route] = MappingProxyType(
    {
        "/healthz": Route("healthz", _live),
        "/readyz": Route("readyz", _ready),
        "/status": Route("status", _status),
        "/metrics": Route("metrics", _metrics),
        "/": Route("page", _page),
    }
)


class App:
    """The WSGI callable. Make it in the admin process: endpoints may import what no other process needs."""

    def __init__(self, source: Source, access: Access, routes: Mapping[str, Route] = ROUTES) -> None:
        self._source = source
        self._access = access
        self._endpoints = {path: (route.name, route.load()) for path, route in routes.items()}

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        answer = self.answer(environ)
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *HEADERS,
            *answer.headers,
        ]
        start_response(answer.status, headers)
        return [answer.body]

    def answer(self, environ: Environ) -> Answer:
        """Return the answer to a request. Raises what an endpoint raises."""
        found = self._endpoints.get(environ["PATH_INFO"])
        if found is None:
            known = "\n".join(self._endpoints)
            return Answer.of_text(f"404 Not Found\nWhat there is:\n{known}", "404 Not Found")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            what = "405 Method Not Allowed\nNothing here changes the server: GET and HEAD only."
            return Answer.of_text(what, "405 Method Not Allowed", ("Allow", "GET, HEAD"))
        name, handler = found
        try:
            return self._access.refusal(name, environ) or handler(self._source, environ)
        except NotYet:
            return Answer.of_text("503 Service Unavailable\nThe server has only just started.", UNAVAILABLE)
