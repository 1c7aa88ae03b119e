"""Make the server that a worker runs: the web server, or the application's own subclass of ``Server``.

Runs only in a worker.
"""

from __future__ import annotations

from prefork.cell import Cell
from prefork.config import Pool, WorkerRange
from prefork.contexts import Contexts
from prefork.errors import ApplicationError
from prefork.heritage import BaseHeritage
from prefork.http.sender import ProxyPolicy
from prefork.log import Log, Logs
from prefork.timelimits import TimeLimits
from prefork.worker.gateway import Gateway
from prefork.worker.health import Health
from prefork.worker.http_server import HTTPServer
from prefork.worker.listening import ListeningSocket
from prefork.worker.queueing import Queueing
from prefork.worker.request_hooks import RequestHooks
from prefork.worker.server import Server

AGES_S = 10.0 * 365 * 86400
"""A limit that no request reaches. One that has a limit rings for the master."""


def make_server(
    app: object,
    pool: Pool,
    heritage: BaseHeritage,
    log: Log,
    logs: Logs,
    cell: Cell,
    contexts: Contexts,
    hooks: RequestHooks,
) -> Server:
    """Return the server for ``app``: a WSGI callable, or a subclass of ``Server``.

    A subclass of ``HTTPServer`` names its WSGI callable in the class attribute ``application``.
    Raises ``ApplicationError``.
    """
    listeners = [ListeningSocket(listener.fd) for listener in heritage.listeners]
    if isinstance(app, type) and issubclass(app, Server) and not issubclass(app, HTTPServer):
        if isinstance(pool.workers, WorkerRange):
            raise ApplicationError(
                f"cannot use {pool.app} with workers: {{min, max}}: only the web server tells when it is busy; "
                "give a number of workers"
            )
        if contexts.by_listener:
            raise ApplicationError(
                f"cannot use {pool.app} with tls: only the web server speaks it; wrap the sockets in process_request"
            )
        if any(listener.proxy_protocol for listener in heritage.listeners):
            raise ApplicationError(
                f"cannot use {pool.app} with proxy_protocol: only the web server speaks it; "
                "read the header in process_request"
            )
        return app(listeners, log, cell, threads=pool.threads, connections=pool.limits.connections)
    server_class: type[HTTPServer] = HTTPServer
    if isinstance(app, type) and issubclass(app, HTTPServer):
        server_class = app
        app = getattr(app, "application", None)
        if app is None:
            raise ApplicationError(
                f"cannot use {pool.app}: a subclass of HTTPServer needs the class attribute `application`, "
                "the WSGI callable that it serves"
            )
    if not callable(app):
        raise ApplicationError(f"cannot use {pool.app}: {app!r} cannot be called")
    recorder = logs.recorder
    gateway = Gateway(
        app,
        log=log,
        recorder=recorder,
        multithread=pool.threads > 1,
        root_path=pool.root_path,
        server_header=pool.server_header,
        responds_with_id=pool.request_id.respond,
        limits=_published_limits(pool),
        cells=cell.threads,
        hooks=hooks,
    )
    return server_class(
        listeners,
        log,
        cell,
        gateway,
        timeouts=pool.timeouts,
        limits=pool.limits,
        threads=pool.threads,
        tls=contexts.by_listener,
        tmp_dir=pool.tmp_dir,
        proxies=proxy_policy(pool),
        introduced=[listener.fd for listener in heritage.listeners if listener.proxy_protocol],
        health=Health(pool.health.live, pool.health.ready) if pool.health.live or pool.health.ready else None,
        queueing=Queueing(pool.timeouts.queue) if pool.timeouts.queue else None,
        before_wait=recorder.flush if recorder is not None else None,
    )


def time_limits(pool: Pool) -> TimeLimits:
    """Return how long the requests of a pool may run."""
    timeouts = pool.timeouts
    return TimeLimits(timeouts.request, timeouts.slow, timeouts.overrides)


def _published_limits(pool: Pool) -> TimeLimits:
    """Return the same for the master, which has to see that requests run where it looks at load or memory."""
    timeouts = pool.timeouts
    if (
        timeouts.slow
        or timeouts.request
        or not (isinstance(pool.workers, WorkerRange) or pool.recycle.pressure)
    ):
        return time_limits(pool)
    return TimeLimits(0, AGES_S, timeouts.overrides)


def proxy_policy(pool: Pool) -> ProxyPolicy:
    """Return what proxies in front of a pool may say."""
    proxy = pool.proxy
    return ProxyPolicy(
        trust=proxy.trust,
        forwarded=proxy.forwarded,
        use=proxy.use,
        drop=proxy.untrusted == "drop",
        allow_names=proxy.allow_names,
        request_id=pool.request_id.trust,
    )
