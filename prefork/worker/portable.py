"""From a connection to what is told of it when it is handed over, and back; runs only in a worker.

What cannot go, for now or at all: what runs, what has unsent output, chunked bodies, and TLS.
"""

from __future__ import annotations

from time import monotonic

from prefork.http.refusal import BadRequest
from prefork.worker.connection import Connection
from prefork.worker.connection_state import State
from prefork.worker.deadlines import NEVER
from prefork.worker.handover import RAW_BYTES, Handover, Origin, Stage
from prefork.worker.introduction import Introduction
from prefork.worker.storage import SpoolFile


def pack(connection: Connection | Introduction) -> tuple[Handover, list[int]] | None:
    """Return what another worker needs to go on, with the descriptors; None if the connection must stay for now."""
    if isinstance(connection, Introduction):
        return _pack_introduction(connection)
    if connection.is_private or connection.output is not None:
        return None
    server, state = connection.server, connection.state
    stage, raw, due, spooled_bytes = Stage.REQUEST, connection.raw, None, None
    fds = [connection.fd]
    if state is State.IDLE:
        due = server.keep_alive.entries.get(connection)
    elif state is State.HEAD:
        due = server.head.entries.get(connection)
    elif state is State.WAITING and connection.whole:
        raw = connection.whole
    elif state in (State.BODY, State.WAITING) and connection.body is not None:
        stage, due = Stage.BODY, server.body.entries.get(connection)
        held = connection.body.portable(RAW_BYTES)
        if held is None:
            return None
        received, spool = held
        raw = received + raw
        if spool is not None:
            spooled_bytes = spool.size
            fds.append(spool.fileno())
    elif state is not State.NEXT:
        return None
    if len(raw) > RAW_BYTES:
        return None
    due = None if due == NEVER else due
    return Handover(
        *(stage, connection.origin, int(connection.sock.family), raw, due, spooled_bytes, monotonic()),
        began_ns=max(connection.began_ns, 0),
    ), fds


def resume(connection: Connection | Introduction, handover: Handover, spool: SpoolFile | None) -> None:
    """Go on where another worker has left off, with its deadline."""
    if isinstance(connection, Introduction):
        connection.wait()
    else:
        connection.began_ns = handover.began_ns
        if handover.stage is Stage.BODY:
            _resume_body(connection, handover.raw, spool)
        elif handover.raw:
            connection.receive_head(handover.raw)
        else:
            connection.wait()
    # Before another look: what comes with it has deadlines of its own.
    if handover.due is not None:
        connection.shorten(handover.due)
    if handover.is_idle:
        connection.on_readable(0)


def _resume_body(connection: Connection, raw: bytes, spool: SpoolFile | None) -> None:
    end = connection.parser.find_end(raw, 0)
    try:
        connection.begin_body(connection.parser.parse(raw[:end]), raw, end, spool)
    except BadRequest as refusal:  # the config may have changed
        if spool is not None:
            spool.close()
        connection.refuse(refusal.status, refusal.reason, raw)


def _pack_introduction(introduction: Introduction) -> tuple[Handover, list[int]] | None:
    if introduction.state is not State.INTRODUCTION or introduction.entrance.is_private:
        return None
    due = introduction.server.introductions.entries.get(introduction)
    origin = Origin(introduction.entrance.local, introduction.address, "")
    family = int(introduction.sock.family)
    return Handover(Stage.INTRODUCTION, origin, family, introduction.raw, due, None, monotonic()), [
        introduction.fd
    ]
