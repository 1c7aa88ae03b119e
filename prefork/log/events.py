"""The events of the log: their names and fields, on which dashboards and alerts of users depend.

Pure. Each call of a ``Log`` names one of these; a test holds the calls and this table together, and
docs/reference/events.md is made of it (``make docs``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple


class EventKind(NamedTuple):
    """What an event is called, at which levels it is written, what it means, and the fields it may have."""

    name: str
    levels: str
    meaning: str
    fields: tuple[str, ...] = ()


FIELDS: Final = {
    "app": "the application, as in the config",
    "by": "who tells it: `master` for a worker that cannot",
    "address": "address of the socket",
    "client": "address and port of the client",
    "command": "name of the command",
    "config": "the files of the config",
    "delay_s": "seconds until the next try",
    "detail": "more of the reason: the request that was late",
    "elapsed_s": "seconds since the request began",
    "exit_status": "exit status, null if it was killed",
    "expected": "false: look at it",
    "failures": "failures in a row",
    "generation": "generation that it is about",
    "hook": "name of the hook",
    "key": "path of the key in the config",
    "leftovers": "what the import left behind",
    "limit": "the limit as it is now",
    "limit_bytes": "memory limit of the control group",
    "lines": "number of lines",
    "listeners": "addresses",
    "lost_s": "seconds that the master did not run",
    "method": "method of the request",
    "needed": "the limit as it should be",
    "pid": "process id",
    "pool": "name of the pool",
    "predecessor": "version before",
    "reason": "a word for why; see [deaths](#reasons-of-deaths)",
    "request_id": "id of the request",
    "requests": "requests served",
    "signal": "name of the signal that ended it, or null",
    "slot": "the worker's position",
    "sockets": "connected sockets that the import left",
    "status": "status of the response, or of the exit",
    "target": "target of the request, with its query",
    "threads": "threads that the import left",
    "tmp_dir": "the directory",
    "took_s": "duration in seconds",
    "traceback": "traceback or stack, of several lines",
    "uptime_s": "seconds since it was ordered",
    "uid": "user id",
    "used_bytes": "memory in use",
    "uss_bytes": "memory that the worker shares with nobody",
    "version": "version of prefork",
    "workers": "number of workers",
}
"""What each field means. The identity of a line (``slot``, ``generation``, ``pid``) is in every event of a worker."""

EVENTS: Final = (
    # The server
    EventKind("starting", "info", "The master starts.", ("version", "config")),
    EventKind("pool-starting", "info", "A generation of a pool starts.",
              ("pool", "generation", "app", "listeners", "workers")),
    EventKind("serving", "info", "All workers are ready.", ("generation",)),
    EventKind("boot-failed", "error", "The server cannot start: the application or its workers fail.",
              ("generation", "traceback")),
    EventKind("stopping", "info", "The server stops; the message says how."),
    EventKind("stopped", "info", "The last line of a server.", ("status",)),
    EventKind("suspended", "warning", "The master did not run for a while; all deadlines have moved.", ("lost_s",)),
    EventKind("internal-error", "error", "A mistake in prefork; please report it.", ("traceback",)),
    EventKind("status-too-long", "warning", "The status is shown without stacks, and maybe without the oldest deaths."),
    # Reloads and upgrades
    EventKind("reload-started", "info", "A reload begins."),
    EventKind("reload-queued", "info", "A reload waits until something else is over."),
    EventKind("reload-ignored", "info", "No reload, since the server stops."),
    EventKind("reload-one-by-one", "warning", "Memory holds no surge, so workers are replaced one by one."),
    EventKind("needs-restart", "warning", "A key changed that a reload does not apply.", ("key",)),
    EventKind("reloaded", "info", "The new generation serves.", ("generation", "took_s")),
    EventKind("reload-failed", "error", "The old generation serves on; the message says why.",
              ("generation", "traceback")),
    EventKind("upgrade-started", "info", "The installed version is checked."),
    EventKind("upgrade-exec", "info", "The running version makes way."),
    EventKind("upgraded", "info", "The new version goes on; a reload follows.", ("version", "predecessor")),
    EventKind("upgrade-refused", "error", "The installed version cannot take over; nothing has changed.",
              ("traceback",)),
    EventKind("upgrade-failed", "error", "The new version failed, and the old one goes on.", ("traceback",)),
    EventKind("upgrade-ignored", "info", "No upgrade now."),
    # Commands
    EventKind("command", "info", "A command came by the control socket.", ("command", "uid")),
    EventKind("control-open", "debug", "The control socket is open.", ("address",)),
    EventKind("control-unavailable", "warning", "There is nowhere to put a control socket."),
    EventKind("control-refused", "warning", "Somebody tried a command who may not.", ("uid",)),
    # The admin process
    EventKind("admin-started", "debug", "An admin process was forked.", ("pid",)),
    EventKind("admin-ready", "info", "An admin process answers."),
    EventKind("admin-failed", "error", "An admin process died or did not get ready; another one follows.",
              ("traceback",)),
    EventKind("admin-gone", "info", "An admin process that is not needed any more is gone.", ("pid",)),
    EventKind("admin-stuck", "warning", "An admin process reads no orders: it is ended, and another one follows.",
              ("pid",)),
    EventKind("board-unknown", "error", "The admin process cannot read what workers write; it shows less.",
              ("traceback",)),
    # Molds
    EventKind("mold-started", "debug", "A mold was forked.", ("pid",)),
    EventKind("mold-ready", "info", "The application is loaded.", ("pid", "took_s")),
    EventKind("mold-failed", "error", "The application cannot be loaded.", ("pool", "generation", "traceback")),
    EventKind("mold-respawn", "info", "A mold died; the application will be loaded again.", ("delay_s",)),
    EventKind("preload-leftovers", "warning", "The import left behind what a fork does not keep.",
              ("threads", "sockets")),
    EventKind("preload-off", "warning", "Workers load the application themselves.", ("leftovers",)),
    EventKind("fork-failed", "error", "The mold could not fork."),
    # Workers
    EventKind("worker-ready", "info", "A worker serves.", ("took_s",)),
    EventKind("worker-boot-failed", "error", "A worker did not get ready.", ("traceback",)),
    EventKind("worker-ended", "warning", "The master sends a worker a signal that ends it.", ("reason",)),
    EventKind("worker-gone", "info, error", "A worker is dead: an error if that was not expected.",
              ("reason", "detail", "exit_status", "signal", "uptime_s", "requests", "expected", "traceback")),
    EventKind("worker-recycling", "info", "A worker asks to be replaced.", ("reason",)),
    EventKind("recycle-memory-too-low", "warning", "`recycle.memory` does not hold for the worker.", ("uss_bytes",)),
    EventKind("memory-pressure", "warning", "The biggest worker is replaced: `recycle.pressure`.",
              ("used_bytes", "limit_bytes", "uss_bytes")),
    EventKind("slot-backs-off", "warning", "A slot waits before it gets its next worker.",
              ("slot", "failures", "delay_s")),
    EventKind("spawn-failed", "error", "A worker could not be ordered."),
    EventKind("spawn-not-sent", "debug", "A mold did not take an order."),
    EventKind("orphan-reaped", "debug", "A process of the application was left over and died.", ("pid",)),
    EventKind("scaled", "info", "Another number of workers is wanted.", ("pool", "workers")),
    EventKind("scale-held", "warning", "More workers are called for, and memory does not hold them.",
              ("pool", "workers")),
    # Hooks
    EventKind("hook-failed", "error", "A hook raised an exception or could not run.", ("hook", "traceback")),
    EventKind("hook-dropped", "warning", "A hook about the server is not run.",
              ("hook", "slot", "pid", "generation")),
    EventKind("hook-ended", "warning", "A hook takes too long and is ended."),
    # Requests
    EventKind("request-slow", "warning", "A request runs for longer than `timeouts.slow`: with its stack.",
              ("method", "target", "elapsed_s", "client", "request_id", "by", "traceback")),
    EventKind("request-slow-ended", "warning", "A request that was slow is over.",
              ("method", "target", "status", "elapsed_s", "request_id")),
    EventKind("request-deadline", "error", "A request passed its deadline: with its stack.",
              ("method", "target", "elapsed_s", "client", "request_id", "by", "traceback")),
    EventKind("request-failed", "error", "The application raised an exception.",
              ("method", "target", "request_id", "traceback")),
    EventKind("request-refused", "info", "A request was refused before it reached the application.", ("status",)),
    EventKind("response-short", "warning", "The application sent less than its Content-Length.",
              ("method", "target", "request_id")),
    EventKind("response-long", "warning", "The application sent more than its Content-Length.",
              ("method", "target", "request_id")),
    EventKind("wsgi-errors", "error", "The application wrote to `wsgi.errors`."),
    EventKind("stdout", "info", "The application printed something: `log.capture_output`."),
    EventKind("stderr", "warning", "The application wrote to its standard error: `log.capture_output`."),
    # Clients and connections
    EventKind("client-gone", "debug", "A client left before its response was sent.",
              ("method", "target", "request_id")),
    EventKind("slow-reader-cut", "info", "A connection was cut because the client does not read."),
    EventKind("proxy-header-refused", "warning", "A connection does not begin with the PROXY header it should."),
    EventKind("tls-failed", "info", "A TLS handshake failed."),
    EventKind("handover-lost", "warning, error", "A connection was lost on its way to another worker."),
    # Listeners, files and logs
    EventKind("listen-waiting", "warning", "An address is still in use; it is tried again for a while."),
    EventKind("listener-unchanged", "warning", "A listener could not take its new settings."),
    EventKind("backlog-capped", "warning", "The kernel allows a smaller backlog."),
    EventKind("quiesce-failed", "warning, error", "A listener could not be told to refuse."),
    EventKind("open-files-raised", "info", "The limit of open files was raised.", ("limit",)),
    EventKind("open-files-too-few", "warning", "The limit of open files is too low for the config.",
              ("limit", "needed")),
    EventKind("out-of-descriptors", "error", "No more descriptors: a worker cannot accept."),
    EventKind("tmp-dir-unusable", "warning", "No temporary file can be written.", ("tmp_dir",)),
    EventKind("metrics-folder-failed", "warning", "The application's own metrics are not collected."),
    EventKind("spool-failed", "error", "A body could not be spooled."),
    EventKind("log-destination", "warning", "A destination of the log is not as good as it could be."),
    EventKind("log-lines-dropped", "warning", "A destination did not take lines for a while.", ("lines",)),
    EventKind("log-reopen-failed", "error", "A log file could not be opened again; the old one is written on."),
    EventKind("logs-reopened", "info", "The log files were opened again."),
    EventKind("access-log-failed", "error", "No access line could be made for a request."),
)  # fmt: skip
"""Every event, in the order of the reference."""


def as_markdown() -> Iterator[str]:
    """Yield the lines of the tables for the documentation."""
    yield "| event | level | meaning | fields |"
    yield "|---|---|---|---|"
    for kind in EVENTS:
        fields = ", ".join(f"`{name}`" for name in kind.fields)
        yield f"| `{kind.name}` | {kind.levels} | {kind.meaning} | {fields} |"
    yield ""
    yield "| field | meaning |"
    yield "|---|---|"
    for name, meaning in sorted(FIELDS.items()):
        yield f"| `{name}` | {meaning} |"
