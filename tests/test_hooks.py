"""Hooks: loading, failing, and what they are for (SQLAlchemy pools, OpenTelemetry processors)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork import process
from prefork.errors import ApplicationError
from prefork.hooks import AfterFork, Hooks, WorkerExit

AFTER_FORK = AfterFork(pool="shop", generation=1, slot="shop.0", pid=1, app=None)
WORKER_EXIT = WorkerExit(pool="shop", generation=1, slot="shop.0", pid=1, reason="reload")

FILES = {
    "shophooks.py": """
calls = []

def first(argument):
    calls.append(("first", argument))

def boom(argument):
    raise RuntimeError("no broker")

def leave(argument):
    raise SystemExit(0)
""",
    # The examples of docs/hooks.md, with SQLite and an in-memory exporter in the place of servers.
    "shopdb.py": """
from sqlalchemy import create_engine, text
from sqlalchemy.pool import QueuePool

engine = create_engine("sqlite:///shop.db", poolclass=QueuePool)

def number_of_connection():
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        return id(connection.connection.dbapi_connection)

def reset(argument):
    engine.dispose(close=False)
""",
    "shoptracing.py": """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

provider = TracerProvider()
exporter = InMemorySpanExporter()

def start(argument):
    provider.add_span_processor(BatchSpanProcessor(exporter))

def flush(argument):
    provider.shutdown()
""",
}


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of hook modules on ``sys.path``; no module of it is left loaded."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


class Reports:
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    def error(self, event: str, message: str, **fields: Any) -> None:
        self.lines.append((event, message, fields["traceback"]))


def in_child(check: Callable[[], bool]) -> bool:
    """Run the check in a forked child, as a hook does; an exception there is a failed check."""
    pid = process.spawn(lambda: 0 if check() else 1)
    return process.reap(pid).exit_status == 0


def test_a_hook_gets_its_argument_and_an_unset_one_does_nothing() -> None:
    hooks = Hooks.load({"after_fork": ("shophooks:first", "shophooks:first"), "worker_ready": ()})
    hooks.run("after_fork", AFTER_FORK, Reports())
    hooks.run("worker_exit", WORKER_EXIT, Reports())
    assert sys.modules["shophooks"].calls == [("first", AFTER_FORK)] * 2


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("shophooks:frist", 'hook after_fork: cannot load shophooks:frist: .* did you mean "first"'),
        ("nowhere:first", 'hook after_fork: .* there is no module "nowhere"'),
        ("shophooks:calls", "hook after_fork: .* type list, which cannot be called"),
        ("shophooks", "hook after_fork: .* expected module:callable"),
        ("shophooks:first()", "hook after_fork: .* expected module:callable"),
    ],
)
def test_a_wrong_path_names_the_hook(path: str, told: str) -> None:
    with pytest.raises(ApplicationError, match=told):
        Hooks.load({"after_fork": (path,)})


@pytest.mark.parametrize("name", ["mold_loaded", "after_fork"])
def test_these_hooks_fail_the_boot(name: str) -> None:
    with pytest.raises(
        ApplicationError, match=f"hook {name} .*shophooks:boom.* raised RuntimeError"
    ) as caught:
        Hooks.load({name: ("shophooks:boom",)}).run(name, AFTER_FORK, Reports())
    assert "in boom" in str(caught.value)
    assert "hooks.py" not in str(caught.value).replace("shophooks.py", "")


def test_the_others_are_logged_and_the_next_one_runs() -> None:
    log = Reports()
    hooks = Hooks.load({"worker_exit": ("shophooks:boom", "shophooks:leave", "shophooks:first")})
    hooks.run("worker_exit", WORKER_EXIT, log)
    assert [(event, message) for event, message, _ in log.lines] == [
        ("hook-failed", "the hook worker_exit (shophooks:boom) raised RuntimeError"),
        ("hook-failed", "the hook worker_exit (shophooks:leave) raised SystemExit"),
    ]
    assert log.lines[0][2].endswith("RuntimeError: no broker")
    assert sys.modules["shophooks"].calls == [("first", WORKER_EXIT)]


def test_sqlalchemy_pool_is_not_shared_with_the_mold() -> None:
    hooks = Hooks.load({"after_fork": ("shopdb:reset",)})
    shopdb = sys.modules["shopdb"]
    inherited = shopdb.number_of_connection()
    assert shopdb.number_of_connection() == inherited

    def check() -> bool:
        hooks.run("after_fork", AFTER_FORK, Reports())
        return bool(shopdb.engine.pool.checkedin() == 0 and shopdb.number_of_connection() != inherited)

    assert in_child(check)
    assert shopdb.number_of_connection() == inherited
    shopdb.engine.dispose()


def test_opentelemetry_exports_from_a_worker() -> None:
    hooks = Hooks.load({"after_fork": ("shoptracing:start",), "worker_exit": ("shoptracing:flush",)})
    tracing = sys.modules["shoptracing"]

    def check() -> bool:
        hooks.run("after_fork", AFTER_FORK, Reports())
        with tracing.provider.get_tracer("shop").start_as_current_span("checkout"):
            pass
        hooks.run("worker_exit", WORKER_EXIT, Reports())
        return [span.name for span in tracing.exporter.get_finished_spans()] == ["checkout"]

    assert in_child(check)
    assert not tracing.exporter.get_finished_spans()
