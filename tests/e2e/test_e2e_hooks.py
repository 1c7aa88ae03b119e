"""Hooks: each in its process, with its argument; what fails; what SQLAlchemy and OpenTelemetry need them for."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import pytest
from harness import HELLO, Server, is_alive, wait_for

CONFIG = """
app: myapp:app
name: shop
listen: 127.0.0.1:0
workers: 2
"""
NAMES = ("mold_loaded", "before_fork", "after_fork", "worker_ready", "worker_exit")

# Each hook prints its process and its argument.
NOTED = (
    HELLO
    + """
import dataclasses, json, os

def note(argument):
    kind = type(argument).__name__
    told = {name: value if isinstance(value, (str, int)) else value.__name__
            for name, value in ((f.name, getattr(argument, f.name)) for f in dataclasses.fields(argument))}
    print("NOTED", kind, os.getpid(), json.dumps(told), flush=True)
"""
)
ALL_NOTED = "hooks: {" + ", ".join(f"{name}: myapp:note" for name in NAMES) + "}\n"


def noted(server: Server) -> list[tuple[str, int, dict[str, Any]]]:
    """Return what the hooks printed: the type of the argument, the process, the fields."""
    found = re.findall(r"NOTED (\w+) (\d+) (.*)", server.log)
    return [(kind, int(pid), json.loads(fields)) for kind, pid, fields in found]


def test_each_hook_runs_in_its_process_with_its_argument(server: Server) -> None:
    server.serve(CONFIG + ALL_NOTED, NOTED)
    [mold] = server.molds()
    workers = server.wait_for_workers(2)
    assert server.stop() == 0
    notes = noted(server)

    common = {"pool": "shop", "generation": 1}
    assert notes[0] == ("MoldLoaded", mold, {**common, "app": "app"})
    forks = [fields for kind, pid, fields in notes if (kind, pid) == ("BeforeFork", mold)]
    assert forks == [{**common, "slot": "shop.0"}, {**common, "slot": "shop.1"}]
    slots = set()
    for pid in workers:
        own = [(kind, fields) for kind, at, fields in notes if at == pid]
        assert [kind for kind, _ in own] == ["AfterFork", "WorkerReady", "WorkerExit"]
        slots.add(slot := own[0][1]["slot"])
        identity = {**common, "slot": slot, "pid": pid}
        assert [fields for _, fields in own] == [
            {**identity, "app": "app"},
            {**identity, "app": "app"},
            {**identity, "reason": "stop"},
        ]
    assert slots == {"shop.0", "shop.1"}
    assert len(notes) == 3 + 3 * 2  # and none in the master


def test_without_preload_only_the_workers_hooks_run(server: Server) -> None:
    server.serve(CONFIG + ALL_NOTED + "preload: false", NOTED)
    assert server.stop() == 0
    kinds = sorted(kind for kind, _, _ in noted(server))
    assert kinds == ["AfterFork"] * 2 + ["WorkerExit"] * 2 + ["WorkerReady"] * 2


def test_worker_exit_says_why(server: Server) -> None:
    server.serve(CONFIG + ALL_NOTED, NOTED)
    asked, retired = server.wait_for_workers(2)
    os.kill(asked, signal.SIGTERM)
    wait_for(lambda: not is_alive(asked), "the end of a worker that was asked to leave")
    wait_for(lambda: len(server.workers()) == 2, "its successor")
    assert server.reload() == "reloaded"
    wait_for(lambda: not is_alive(retired), "the end of the old generation")
    reasons = {pid: fields["reason"] for kind, pid, fields in noted(server) if kind == "WorkerExit"}
    assert (reasons[asked], reasons[retired]) == ("asked", "retired")
    assert [fields["generation"] for kind, _, fields in noted(server) if kind == "MoldLoaded"] == [1, 2]


FAILING = (
    HELLO
    + """
def broken(argument):
    raise LookupError("no broker")

def fine(argument):
    print("FINE", type(argument).__name__, flush=True)
"""
)


@pytest.mark.parametrize("hook", ["mold_loaded", "after_fork"])
def test_a_hook_that_must_not_fail_fails_the_boot(server: Server, hook: str) -> None:
    server.configure(CONFIG + f"hooks: {{{hook}: [myapp:broken, myapp:fine]}}", FAILING)
    server.start()
    assert server.wait() == 3
    assert f"the hook {hook} (myapp:broken) raised LookupError" in server.log
    assert "LookupError: no broker" in server.log
    assert "FINE" not in server.log


@pytest.mark.parametrize("hook", ["mold_loaded", "after_fork"])
def test_and_it_fails_a_reload(server: Server, hook: str) -> None:
    server.serve(CONFIG)
    workers = server.wait_for_workers(2)
    server.configure(CONFIG + f"hooks: {{{hook}: myapp:broken}}", FAILING)
    assert server.reload() == "failed"
    assert f"the hook {hook} (myapp:broken) raised LookupError" in server.log
    assert server.workers("gen 1") == workers
    assert server.get() == (200, "hello")


def test_other_hooks_that_fail_are_logged_and_the_next_runs(server: Server) -> None:
    hooks = ", ".join(
        f"{name}: [myapp:broken, myapp:fine]" for name in ("before_fork", "worker_ready", "worker_exit")
    )
    server.serve(CONFIG + f"hooks: {{{hooks}}}", FAILING)
    workers = server.wait_for_workers(2)
    assert server.get() == (200, "hello")
    assert server.stop() == 0
    for name in ("before_fork", "worker_ready", "worker_exit"):
        lines = [
            line
            for line in server.log.splitlines()
            if f"the hook {name} (myapp:broken) raised LookupError" in line
        ]
        assert len(lines) == 2
        assert all(" error " in line for line in lines)
        if name != "before_fork":
            assert {int(re.search(r"pid (\d+):", line)[1]) for line in lines} == set(workers)  # type: ignore[index]
    for kind in ("BeforeFork", "WorkerReady", "WorkerExit"):
        assert server.log.count(f"FINE {kind}\n") == 2, server.log


def test_sqlalchemy_connections_of_the_mold_are_not_used_by_workers(server: Server) -> None:
    app = """
    import os
    from sqlalchemy import create_engine, event, text
    from sqlalchemy.pool import QueuePool

    engine = create_engine("sqlite:///shop.db", poolclass=QueuePool)

    @event.listens_for(engine, "connect")
    def remember_who(connection, record):
        record.info["pid"] = os.getpid()

    with engine.begin() as connection:
        connection.execute(text("create table visits (pid integer)"))

    def forget(argument):
        engine.dispose(close=False)

    def app(environ, start_response):
        with engine.begin() as connection:
            connection.execute(text("insert into visits values (:pid)"), {"pid": os.getpid()})
            made_by = connection.connection.info["pid"]
        start_response("200 OK", [])
        return [f"{made_by} {os.getpid()}".encode()]
    """
    server.serve(CONFIG + "hooks: {after_fork: myapp:forget}", app)
    assert len(server.molds()) == 1
    for _ in range(4):
        made_by, worker = server.get()[1].split()
        assert made_by == worker
    assert "preload-off" not in server.log
    assert server.stop() == 0


def test_opentelemetry_exports_the_spans_of_workers(server: Server) -> None:
    app = """
    import os, threading
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    provider = TracerProvider()
    tracer = provider.get_tracer("shop")

    def name_of(span):
        return span.name + "\\n"

    def start(argument):
        provider.add_span_processor(
            BatchSpanProcessor(
                ConsoleSpanExporter(out=open(f"spans.{os.getpid()}", "w"), formatter=name_of),
                schedule_delay_millis=3_600_000,  # so only the flush at the worker's exit exports
            )
        )

    def flush(argument):
        provider.shutdown()

    def app(environ, start_response):
        with tracer.start_as_current_span(environ["PATH_INFO"]):
            start_response("200 OK", [])
            return [f"{os.getpid()} {len(threading.enumerate())}".encode()]
    """
    server.serve(CONFIG + "hooks: {after_fork: myapp:start, worker_exit: myapp:flush}", app)
    sent: dict[str, list[str]] = {}
    for number in range(4):
        worker, threads = server.get(f"/{number}")[1].split()
        assert threads == "3"  # with the exporter's, and the steward
        sent.setdefault(worker, []).append(f"/{number}\n")
    assert " warning " not in server.log
    assert server.stop() == 0
    assert {worker: (server.folder / f"spans.{worker}").read_text() for worker in sent} == {
        worker: "".join(spans) for worker, spans in sent.items()
    }
