"""The access log: one line for each request, made in the worker that served it.

Lines are collected and written when the serve loop is about to wait, so that a busy worker makes one system
call for many requests; ``flush`` costs nothing when there is no line.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Mapping
from copy import copy
from types import MappingProxyType
from typing import Protocol

from prefork.log.access_format import AccessEntry, Formatter, compile_access_format, compile_access_json
from prefork.log.destination import Sink
from prefork.log.log import Log
from prefork.log.redact import query_redactor
from prefork.log.turn import Turn, call_after_fork


class Recorder(Protocol):
    """Is told of each request that is over: an ``AccessLog``, or ``statsd.Statsd``."""

    def record(self, entry: AccessEntry) -> None:
        """Note a request that is over; any thread may do that."""

    def flush(self) -> None:
        """Write what was recorded; the serve loop does so before it waits."""


class Recorders:
    """Several recorders as one."""

    def __init__(self, *recorders: Recorder) -> None:
        self._recorders = recorders

    def record(self, entry: AccessEntry) -> None:
        for recorder in self._recorders:
            recorder.record(entry)

    def flush(self) -> None:
        for recorder in self._recorders:
            recorder.flush()


BUFFERED_LINES = 64
"""Lines that are written without waiting for the serve loop."""


class AccessLog:
    """Writes access lines to a destination; ``log`` is told when lines were lost.

    ``when`` is ``all``, ``errors`` (status 400 and above, and requests without a response) or ``slow`` (took
    ``slow_s`` or longer). ``skip`` has path patterns, see ``path_matcher``.
    """

    def __init__(
        self,
        destination: Sink,
        log: Log,
        *,
        format: str = "combined",
        when: str = "all",
        slow_s: float = 0.0,
        skip: Collection[str] = (),
        redact_query: Collection[str] = (),
        fields: Mapping[str, object] = MappingProxyType({}),
        rename: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.destination = destination
        self._log = log
        self._arguments = (format, fields, rename, redact_query)
        self._skipping = (when, skip)
        self._skips = _skipper(when, slow_s, skip)
        self._line = self._compile()
        self._start()

    def bind(self, log: Log, slow_s: float | None = None) -> AccessLog:
        """Return an access log for the process whose log this is; its identity goes into JSON lines.

        ``slow_s`` is what is slow in its pool.
        """
        bound = copy(self)
        bound._log = log
        if slow_s is not None:
            when, skip = self._skipping
            bound._skips = _skipper(when, slow_s, skip)
        bound._line = bound._compile()
        bound._start()
        return bound

    def record(self, entry: AccessEntry) -> None:
        """Note a request that is over; any thread may do that."""
        try:
            if self._skips is not None and self._skips(entry):
                return
            self._lines.append(self._line(entry))
        except Exception as error:  # an application may put anything into its environ
            self._log.error("access-log-failed", f"no access line for a request: {error!r}")
        if len(self._lines) >= BUFFERED_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what was recorded; the serve loop does so before it waits."""
        while self._lines and self._turn.take():
            try:
                count = len(self._lines)
                lines = "\n".join(self._lines[:count])
                del self._lines[:count]
                lost = self.destination.write(f"{lines}\n".encode("utf-8", "backslashreplace"))
            finally:
                self._turn.give_back()
            self._log.report_lost(lost, "access log")

    def after_fork(self) -> None:
        """Forget, in a child, what the parent has yet to write."""
        self._turn = Turn()
        self._lines: list[str] = []

    def _start(self) -> None:
        self.after_fork()
        call_after_fork(self)

    def _compile(self) -> Formatter:
        format, fields, rename, redact_query = self._arguments
        redact = query_redactor(redact_query)
        if format == "json":
            return compile_access_json({**fields, **self._log.bound}, rename, redact)
        return compile_access_format(format, redact)


def path_matcher(patterns: Collection[str]) -> Callable[[str], bool]:
    """Return whether a path matches one of the patterns.

    A pattern with ``*``, ``?`` or ``[`` is a glob over the whole path, and its ``*`` matches ``/`` too;
    another one matches that path and all below it: ``/static`` is ``/static`` and ``/static/shop.css``, but
    not ``/statics``.
    """
    expressions = [
        fnmatch.translate(pattern)
        if any(character in pattern for character in "*?[")
        else re.escape(pattern.rstrip("/")) + ("/.*" if pattern.endswith("/") else "(?:/.*)?")
        for pattern in patterns
    ]
    matches = re.compile("|".join(expressions), re.DOTALL).fullmatch
    return lambda path: matches(path) is not None


def _skipper(when: str, slow_s: float, skip: Collection[str]) -> Callable[[AccessEntry], bool] | None:
    """Return what says that an entry is not written, or None if all are."""
    conditions: list[Callable[[AccessEntry], bool]] = []
    if when == "errors":
        conditions.append(lambda entry: 0 < entry.status < 400)
    elif when == "slow":
        slow_ns = int(slow_s * 1e9)
        conditions.append(lambda entry: not 0 < slow_ns <= entry.elapsed_ns)
    if skip:
        is_skipped = path_matcher(skip)
        conditions.append(lambda entry: is_skipped(entry.target.partition("?")[0]))
    if not conditions:
        return None
    return lambda entry: any(condition(entry) for condition in conditions)
