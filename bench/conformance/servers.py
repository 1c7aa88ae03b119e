"""The servers that are asked, each as its manual says it is started for one application."""

from __future__ import annotations

from bench.servers import Server

APP = "bench.conformance.app:application"
_IN_PROCESS = "{bin}/python -m bench.conformance.peers %s {port}"

SERVERS = (
    Server("prefork", "prefork", "{bin}/prefork " + APP + " -w 1 -b 127.0.0.1:{port}"),
    Server("gunicorn sync", "gunicorn", "{bin}/gunicorn -k sync -b 127.0.0.1:{port} " + APP),
    Server("gunicorn gthread", "gunicorn", "{bin}/gunicorn -k gthread --threads 4 -b 127.0.0.1:{port} " + APP),
    Server("uWSGI", "uWSGI", "{bin}/uwsgi --master --processes 1 --die-on-term --http11-socket 127.0.0.1:{port}"
           " --disable-logging --module " + APP),
    Server("waitress", "waitress", "{bin}/waitress-serve --listen=127.0.0.1:{port} " + APP),
    Server("cheroot", "cheroot", _IN_PROCESS % "cheroot"),
    Server("granian", "granian", "{bin}/granian --interface wsgi --http 1 --no-ws --workers 1 --blocking-threads 1"
           " --host 127.0.0.1 --port {port} " + APP),
    Server("bjoern", "bjoern", _IN_PROCESS % "bjoern"),
    Server("gevent", "gevent", _IN_PROCESS % "gevent"),
    Server("tornado", "tornado", _IN_PROCESS % "tornado"),
    Server("Twisted", "twisted", "{bin}/python -m twisted web --wsgi bench.conformance.app.application"
           " --listen tcp:{port}:interface=127.0.0.1"),
    Server("uvicorn (httptools)", "uvicorn", "{bin}/uvicorn --interface wsgi --http httptools --host 127.0.0.1"
           " --port {port} " + APP),
    Server("uvicorn (h11)", "uvicorn", "{bin}/uvicorn --interface wsgi --http h11 --host 127.0.0.1"
           " --port {port} " + APP),
    Server("hypercorn", "hypercorn", "{bin}/hypercorn -b 127.0.0.1:{port} wsgi:" + APP),
)  # fmt: skip

ALSO = {"uvicorn": ("httptools", "a2wsgi")}
"""What a package needs besides itself."""
