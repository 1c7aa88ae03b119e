"""The life of the admin process: from the fork to ready, the ordinary serve loop, and the way out.

Runs only in the admin process. It shares nothing with the workers of pools but what it reads.
"""

from __future__ import annotations

import gc
import os
import random
import threading
import traceback

from prefork import child, privileges
from prefork.admin.access import Access
from prefork.admin.app import App
from prefork.admin.reading import Reading
from prefork.bulletin import Bulletin
from prefork.cell import READY, Cell
from prefork.channel import Channel, ChannelClosed, Message, clip
from prefork.config import Admin, Pool
from prefork.contexts import Contexts
from prefork.errors import ExitStatus
from prefork.heritage import AdminHeritage, close_all_but
from prefork.log import Log, Logs
from prefork.log.capture import capture_output
from prefork.privileges import Credentials
from prefork.scoreboard import Scoreboard
from prefork.worker.http_server import HTTPServer
from prefork.worker.orders import Orders
from prefork.worker.request_hooks import RequestHooks
from prefork.worker.serving import make_server


def main(
    heritage: AdminHeritage,
    admin: Admin,
    pool: Pool,
    credentials: Credentials | None,
    logs: Logs,
    contexts: Contexts,
) -> int:
    """Run as the admin process; return its exit status. ``pool`` is its config as the worker code reads it."""
    gc.freeze()  # what the master has not collected yet owns descriptors, whose numbers are used again here
    close_all_but(heritage.descriptors())
    child.begin(heritage, f"prefork: admin {heritage.server}")
    pid = os.getpid()
    logs = logs.bind(f"admin pid {pid}", pid=pid)
    logs.access = logs.statsd = None  # health checks and scrapes come every few seconds
    capture_output(logs)
    channel = Channel.from_fd(heritage.channel)
    try:
        try:
            with child.tied_to_master(heritage.lifeline):
                reading = Reading(Bulletin(heritage.bulletin), heritage.lifeline, heritage.metrics_folder)
                for board in heritage.boards:
                    reading.add_board(board.pool, board.generation, board.fd)
                # It imports; the user may have no right to read this package.
                app = App(reading, Access(heritage.server, admin.token, admin.open))
            privileges.drop(credentials)
            random.seed()
            if heritage.metrics_folder is not None:
                _keep_tidy(heritage.metrics_folder)
            server, cell = _make(app, heritage, pool, logs, contexts)
        except Exception:
            channel.send("failed", text=clip(traceback.format_exc()))
            return ExitStatus.APPLICATION
        orders = Orders(channel, heritage, logs, cell, lambda order: _obey(order, reading, logs.log))
        orders.attach(server)
        server.watch_requests(orders.tell_late, graceful_s=pool.timeouts.graceful, before_exit=logs.flush)
        cell.set_state(READY)
        channel.send("ready")
        where = ", ".join(listener.address for listener in heritage.listeners)
        logs.log.info("admin-ready", f"answers on {where}")
        server.serve_forever()
        return ExitStatus.OK
    except ChannelClosed:
        return ExitStatus.OK  # the master has no use for this process, or is dead
    finally:
        logs.flush()


def _keep_tidy(folder: str) -> None:
    from prefork.admin.application_metrics import ApplicationMetrics

    threading.Thread(target=ApplicationMetrics(folder).keep_tidy, daemon=True).start()


def _make(
    app: App, heritage: AdminHeritage, pool: Pool, logs: Logs, contexts: Contexts
) -> tuple[HTTPServer, Cell]:
    """Return the server and its cell, which is in a scoreboard that nobody else reads."""
    board = Scoreboard.create(pool.name, 0, cells=1, threads=pool.threads, doorbell=-1)
    server = make_server(app, pool, heritage, logs.log, logs, board.cells[0], contexts, RequestHooks())
    assert isinstance(server, HTTPServer)
    return server, board.cells[0]


def _obey(order: Message, reading: Reading, log: Log) -> bool:
    """Take an order that only an admin process gets; return whether it is one."""
    if order.kind != "board" or len(order.fds) != 1:
        return False
    try:
        reading.add_board(str(order.fields["pool"]), int(order.fields["generation"]), order.fds[0])
    except (ValueError, OSError):  # of another version of prefork
        log.error("board-unknown", "cannot read a scoreboard", traceback=traceback.format_exc())
    return True
