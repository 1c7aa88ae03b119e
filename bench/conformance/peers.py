"""Servers that have no command of their own: ``python -m bench.conformance.peers NAME PORT``."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from bench.conformance.app import application


def cheroot(app: Any, port: int) -> None:
    import_module("cheroot.wsgi").Server(("127.0.0.1", port), app).safe_start()


def bjoern(app: Any, port: int) -> None:
    import_module("bjoern").run(app, "127.0.0.1", port)


def gevent(app: Any, port: int) -> None:
    import_module("gevent.pywsgi").WSGIServer(("127.0.0.1", port), app, log=None).serve_forever()


def tornado(app: Any, port: int) -> None:
    container = import_module("tornado.wsgi").WSGIContainer(app)
    import_module("tornado.httpserver").HTTPServer(container).listen(port, "127.0.0.1")
    import_module("tornado.ioloop").IOLoop.current().start()


if __name__ == "__main__":
    {"cheroot": cheroot, "bjoern": bjoern, "gevent": gevent, "tornado": tornado}[sys.argv[1]](
        application, int(sys.argv[2])
    )
