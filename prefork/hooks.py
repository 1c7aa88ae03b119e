"""Hooks: the application's callables that run at fixed points in the life of a mold and of a worker.

Runs in the mold and in workers, never in the master. ``docs/hooks.md`` is the user's page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prefork.application import load_callable
from prefork.errors import ApplicationError
from prefork.tracebacks import application_traceback

# Without them what follows would run on connections and threads that are not there: the boot must fail.
_FATAL = frozenset({"mold_loaded", "after_fork"})


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

    def run(self, name: str, argument: object, log: Reporter) -> None:
        """Call the hook's callables in order.

        Raise ApplicationError when one of ``mold_loaded`` or ``after_fork`` fails; a failure of another hook
        is logged, and the next callable runs.
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
