"""The event log: ``log.info("worker-ready", "ready after 0.2 s", took_s=0.2)``.

It is not the standard library's ``logging``, which belongs to the application: that has locks which a forked
or stuck process may hold, and a configuration that the application replaces. This one never raises, never
blocks and waits for no lock; any thread of any process may use it, also in a signal handler.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import copy
from time import time
from types import MappingProxyType

from prefork.log.destination import Sink
from prefork.log.format import Event, JsonFormat, to_text
from prefork.log.redact import query_redactor

LEVELS: Mapping[str, int] = MappingProxyType(
    {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
)
"""Names of the levels in rising order, with the numbers that ``logging`` has for them."""


class Log:
    """Writes events to a destination, with the identity of a process or worker on each.

    ``event`` is one of ``events.EVENTS``, ``message`` a sentence that says all to a person; ``fields`` are for
    machines, and a field of several lines (``traceback``) is shown in text too. ``counted`` is called with the level of
    each that is a warning or worse, with ``exception`` for those of the application.
    """

    def __init__(
        self,
        destination: Sink,
        *,
        level: str = "info",
        format: str = "text",
        fields: Mapping[str, object] = MappingProxyType({}),
        rename: Mapping[str, str] = MappingProxyType({}),
        redact_query: Collection[str] = (),
        counted: Callable[[str], None] | None = None,
    ) -> None:
        self.destination = destination
        self._threshold = LEVELS[level]
        self._format: Callable[[Event], str] = JsonFormat(fields, rename) if format == "json" else to_text
        # Here, so that no caller who puts a request's target into a message has to think of it.
        self._redact = query_redactor(redact_query) if redact_query else None
        self._counted = counted
        self._identity = ""
        self._bound: Mapping[str, object] = {}

    def bind(self, identity: str, /, **fields: object) -> Log:
        """Return a log that puts ``identity`` before each message, and ``fields`` into each event."""
        bound = copy(self)
        bound._identity = identity
        bound._bound = {**self._bound, **fields}
        return bound

    @property
    def bound(self) -> Mapping[str, object]:
        """The fields of the identity."""
        return self._bound

    def debug(self, event: str, message: str, /, **fields: object) -> None:
        self.write("debug", event, message, fields)

    def info(self, event: str, message: str, /, **fields: object) -> None:
        self.write("info", event, message, fields)

    def warning(self, event: str, message: str, /, **fields: object) -> None:
        self.write("warning", event, message, fields)

    def error(self, event: str, message: str, /, **fields: object) -> None:
        self.write("error", event, message, fields)

    def critical(self, event: str, message: str, /, **fields: object) -> None:
        self.write("critical", event, message, fields)

    def write(self, level: str, event: str, message: str, fields: Mapping[str, object]) -> None:
        """Write one event if its level is at or above that of the log."""
        if LEVELS[level] < self._threshold:
            return
        if self._counted and LEVELS[level] >= LEVELS["warning"]:
            self._counted("exception" if event == "request-failed" else level)
        fields = {**self._bound, **fields}
        if redact := self._redact:
            message = redact(message)
            fields = {
                key: redact(value) if isinstance(value, str) else value for key, value in fields.items()
            }
        written = Event(time(), level, event, self._identity, message, fields)
        self.report_lost(self.destination.put(written, self._format))

    def report_lost(self, lines: int, what: str = "log") -> None:
        """Say that lines were lost, if any were, now that their destination works again."""
        if lines:
            message = f"{lines} lines of the {what} dropped: its destination did not take them"
            self.warning("log-lines-dropped", message, lines=lines)
