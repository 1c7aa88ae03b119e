"""How a worker begins and ends: from the fork to ready, the serve loop, and the way out.

Runs only in a worker.
"""

from __future__ import annotations

import gc
import os
import random
import traceback
from collections.abc import Callable

from prefork import child
from prefork.birth import Birth, load
from prefork.cell import READY
from prefork.channel import PROTOCOL, Channel, ChannelClosed, clip
from prefork.errors import ExitStatus, PreforkError
from prefork.hooks import AfterFork, SslContext, WorkerExit, WorkerReady
from prefork.log.capture import capture_output
from prefork.ties import Ties
from prefork.worker.http_server import HTTPServer
from prefork.worker.orders import Orders
from prefork.worker.recycling import watch_over
from prefork.worker.relay import Relay
from prefork.worker.request_hooks import request_hooks
from prefork.worker.serving import make_server, time_limits


def main(birth: Birth) -> int:
    """Run as a worker; return its exit status."""
    heritage, pool = birth.heritage, birth.pool
    name = f"{pool.name}.{birth.slot}"
    pid = os.getpid()
    child.begin(heritage, f"prefork: worker {name} gen {heritage.generation}")
    logs = birth.logs.bind(
        f"{name} gen {heritage.generation} pid {pid}",
        slow_s=pool.timeouts.slow,
        slot=name,
        generation=heritage.generation,
        pid=pid,
    )
    capture_output(logs)
    log = logs.log
    channel = Channel.from_fd(heritage.channel)
    cell = birth.scoreboard.cells[birth.cell]
    ties = Ties(heritage.ties)
    try:
        channel.send("hello", protocol=PROTOCOL)
        cell.claim(pid)
        orders = Orders(channel, heritage, logs, cell)
        random.seed()  # not the mold's sequence in each worker
        gc.enable()
        try:
            with child.tied_to_master(heritage.lifeline):
                loaded = birth.loaded or load(pool)
                identity = (pool.name, heritage.generation, name, pid)
                loaded.hooks.run("after_fork", AfterFork(*identity, loaded.app), log)
                for context, addresses in birth.tls.with_addresses(heritage.listeners):
                    loaded.hooks.run("ssl_context", SslContext(*identity, addresses, context), log)
            relay = Relay(*heritage.relay)
            hooks = request_hooks(loaded.hooks, log, *identity)
            server = make_server(loaded.app, pool, heritage, log, logs, cell, birth.tls, hooks)
        except PreforkError as error:
            return _fail(channel, str(error))
        except Exception:
            return _fail(channel, traceback.format_exc())
        ties.disown = lambda: (
            channel.fileno(),
            heritage.lifeline,
            heritage.doorbell,
            *heritage.relay,
            *server.disown(),
        )
        loaded.hooks.run("worker_ready", WorkerReady(*identity, loaded.app), log)
        orders.attach(server)
        if isinstance(server, HTTPServer):
            server.share_connections(
                relay,
                birth.scoreboard.connections_of_ready,
                passes_on=pool.share_connections,
                orders=orders.descriptors(),
                give_up_s=pool.timeouts.graceful / 2,
            )
            if any(time_limits(pool).all_s()):
                server.watch_requests(
                    orders.tell_late, hooks.late, graceful_s=pool.timeouts.graceful, before_exit=logs.flush
                )
        else:
            server.use_relay(relay)
        watch_over(server, pool, cell, orders.ask_to_leave, log)
        cell.set_state(READY)
        channel.send("ready")
        return _serve(
            server.serve_forever,
            lambda: loaded.hooks.run("worker_exit", WorkerExit(*identity, orders.reason), log),
        )
    except ChannelClosed:
        return ExitStatus.OK  # the master has no use for this worker, or is dead
    finally:
        logs.flush()


def _serve(serve_forever: Callable[[], None], at_exit: Callable[[], None]) -> int:
    try:
        serve_forever()
    finally:
        at_exit()
    return ExitStatus.OK


def _fail(channel: Channel, text: str) -> int:
    channel.send("failed", text=clip(text))
    return ExitStatus.APPLICATION
