"""Hooks: the application's callables that run at fixed points in the life of the server.

Runs in molds, workers and helper processes, never in the master. ``docs/hooks.md`` is the user's page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from prefork.application import load_callable
from prefork.errors import ApplicationError
from prefork.tracebacks import application_traceback

if TYPE_CHECKING:
    from ssl import SSLContext

# Without them what follows would run on connections and threads that are not there, or with a TLS that nobody
# wants: the boot must fail.
_FATAL = frozenset({"mold_loaded", "after_fork", "ssl_context"})


@dataclass(frozen=True, slots=True)
class MoldLoaded:
    """``mold_loaded``, in the mold: the application is loaded, nothing is forked yet."""

    pool: str
    generation: int
    app: object


@dataclass(frozen=True, slots=True)
class BeforeFork:
    """``before_fork``, in the mold: a worker is about to be forked for ``slot``."""

    pool: str
    generation: int
    slot: str


@dataclass(frozen=True, slots=True)
class AfterFork:
    """``after_fork``, in a new worker that has the application, inherited or loaded by itself."""

    pool: str
    generation: int
    slot: str
    pid: int
    app: object


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """``worker_ready``, in a worker: it is about to take its first connection."""

    pool: str
    generation: int
    slot: str
    pid: int
    app: object


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """``worker_exit``, in a worker: it has served its last request and leaves for ``reason``."""

    pool: str
    generation: int
    slot: str
    pid: int
    reason: str


@dataclass(frozen=True, slots=True)
class SslContext:
    """``ssl_context``, in a worker that boots: the TLS of listeners, which the hook may change."""

    pool: str
    generation: int
    slot: str
    pid: int
    addresses: tuple[str, ...]
    """Of the listeners; those with the same section ``tls`` share a context."""
    context: SSLContext


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """``request_started``, in a worker: the application is about to be called."""

    pool: str
    generation: int
    slot: str
    pid: int
    environ: dict[str, Any]
    """The one that the application gets."""


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """``request_finished``, in a worker: the application's iterable is closed; the client may still be reading."""

    pool: str
    generation: int
    slot: str
    pid: int
    environ: dict[str, Any]
    status: int
    sent_bytes: int
    """Of the body."""
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Deadline:
    """``deadline``, in a worker: a request has passed its deadline and the worker is about to end."""

    pool: str
    generation: int
    slot: str
    pid: int
    environ: dict[str, Any]
    stack: str
    """Of the thread that runs the request, innermost call last."""
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class ServerReady:
    """``server_ready``, in a helper process: every worker of a pool is ready for the first time."""

    pool: str
    generation: int
    addresses: tuple[str, ...]
    """Where it listens."""


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """``worker_gone``, in a helper process: a worker has ended."""

    pool: str
    generation: int
    slot: str
    pid: int
    reason: str
    """As in the log: ``retired``, ``request-deadline``, ``oom-killed``, ``died``, …"""
    detail: str | None
    """What more is known, such as the request that passed its deadline."""
    expected: bool
    exit_status: int | None
    signal: str | None
    """``SIGKILL``, if a signal ended it."""
    uptime_s: float
    requests: int


@dataclass(frozen=True, slots=True)
class ServerExit:
    """``server_exit``, in a helper process: the last worker of a pool has ended, because the pool stops."""

    pool: str
    generation: int
    reason: str
    """``stop``, ``quick-stop``, or ``retired``: a reload has taken the pool out."""


OF_HELPERS: Mapping[str, Callable[..., object]] = MappingProxyType(
    {"server_ready": ServerReady, "worker_gone": WorkerGone, "server_exit": ServerExit}
)
"""The arguments of the hooks that run in a helper process."""


class Reporter(Protocol):
    """The part of the log that hooks need."""

    def error(self, event: str, message: str, /, **fields: object) -> None: ...


class Hooks:
    """The callables of a pool's hooks, imported."""

    def __init__(self, callables: Mapping[str, tuple[Callable[[Any], object], ...]]) -> None:
        self._callables = callables

    @classmethod
    def load(cls, paths: Mapping[str, Iterable[str]]) -> Hooks:
        """Import the ``module:callable`` paths of each hook. Raise ApplicationError with the hook's name."""
        return cls({name: tuple(_load(name, path) for path in each) for name, each in paths.items() if each})

    def has(self, name: str) -> bool:
        """Tell whether a hook is set."""
        return bool(self._callables.get(name))

    def run(self, name: str, argument: object, log: Reporter) -> None:
        """Call the hook's callables in order.

        Raise ApplicationError when one of ``mold_loaded``, ``after_fork`` or ``ssl_context`` fails; a failure
        of another hook is logged, and the next callable runs.
        """
        for callable_ in self._callables.get(name, ()):
            try:
                callable_(argument)
            except BaseException as error:  # a hook's sys.exit() must not end a worker
                message = f"the hook {name} ({_path(callable_)}) raised {type(error).__name__}"
                told = application_traceback(error)
                if name in _FATAL:
                    raise ApplicationError(f"{message}\n{told}") from None
                log.error("hook-failed", message, traceback=told)


def _load(name: str, path: str) -> Callable[[Any], object]:
    try:
        return load_callable(path)
    except ApplicationError as error:
        raise ApplicationError(f"hook {name}: {error}") from None


def _path(callable_: Callable[[Any], object]) -> str:
    module = getattr(callable_, "__module__", None)
    return f"{module}:{getattr(callable_, '__qualname__', type(callable_).__name__)}"
