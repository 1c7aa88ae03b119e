"""The logs of a server, opened once by the master from the config and inherited by every process."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import NamedTuple, Protocol

from prefork.errors import ConfigError
from prefork.log.access import AccessLog, Recorder, Recorders
from prefork.log.destination import Destination, Sink
from prefork.log.journal import open_journal
from prefork.log.log import Log
from prefork.log.statsd import Statsd, StatsdSettings
from prefork.log.syslog import open_syslog


class LogSettings(Protocol):
    """What is needed of ``config.log``; the names are the config's keys."""

    @property
    def level(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def to(self) -> str: ...
    @property
    def access(self) -> str: ...
    @property
    def access_format(self) -> str: ...
    @property
    def access_when(self) -> str: ...
    @property
    def access_skip(self) -> Collection[str]: ...
    @property
    def redact_query(self) -> Collection[str]: ...
    @property
    def fields(self) -> Mapping[str, object]: ...
    @property
    def rename(self) -> Mapping[str, str]: ...
    @property
    def capture_output(self) -> bool: ...


class Reopened(NamedTuple):
    """What came of reopening: a descriptor for each file, which every child must be sent, and the failures.

    A file that could not be opened is written on; its descriptor is among them, too.
    """

    fds: list[int]
    failures: list[str]


class Logs:
    """The event log and the access log (None if it is off), and what both are written to.

    Lines have the identity of the master until ``bind`` gives them another.
    The master rotates files: ``fds, failures = logs.reopen()``, then it sends ``fds`` to each child, which calls
    ``logs.replace(received)``. Numbers of descriptors never change, so ``fds`` may be part of the heritage.
    """

    def __init__(
        self,
        settings: LogSettings,
        statsd: StatsdSettings | None = None,
        *,
        slow_s: float = 0.0,
        files: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Open the destinations. Raises ``ConfigError``.

        ``files`` are those that an older version of this process has opened, by the key of the config.
        """

        def open_destination(where: str, key: str) -> Sink:
            if where == "journal":
                return open_journal(key, settings.fields)
            if where.startswith("syslog:"):
                return open_syslog(where.removeprefix("syslog:"), key)
            return Destination.adopt(files[key], where) if key in files else Destination.open(where, key)

        self.statsd = None if statsd is None else Statsd(statsd)
        destination = open_destination(settings.to, "log.to")
        self.log = Log(
            destination,
            level=settings.level,
            format=settings.format,
            fields=settings.fields,
            rename=settings.rename,
            redact_query=settings.redact_query,
            counted=None if self.statsd is None else self.statsd.count_logged,
        ).bind(f"master pid {os.getpid()}", pid=os.getpid())
        self.access: AccessLog | None = None
        self.capture_output = settings.capture_output
        self._destinations = [destination]
        if settings.access != "off":
            format = settings.access_format
            if format == "auto":
                format = "json" if settings.format == "json" else "combined"
            destination = open_destination(settings.access, "log.access")
            self._destinations.append(destination)
            try:
                self.access = AccessLog(
                    destination,
                    self.log,
                    format=format,
                    when=settings.access_when,
                    slow_s=slow_s,
                    skip=settings.access_skip,
                    redact_query=settings.redact_query,
                    fields=settings.fields,
                    rename=settings.rename,
                )
            except ValueError as error:
                raise ConfigError(f"log.access_format: {error}") from error
        for opened in self._destinations:
            if opened.warning:
                self.log.warning("log-destination", opened.warning)

    @property
    def recorder(self) -> Recorder | None:
        """What is told of each request, None if nothing is."""
        if self.access is None or self.statsd is None:
            return self.access or self.statsd
        return Recorders(self.access, self.statsd)

    def bind(self, identity: str, /, *, slow_s: float | None = None, **fields: object) -> Logs:
        """Return the logs of a process, which put its identity on each line; see ``Log.bind``.

        ``slow_s`` is ``timeouts.slow`` of its pool.
        """
        bound = copy(self)
        bound.log = self.log.bind(identity, **fields)
        bound.access = self.access and self.access.bind(bound.log, slow_s)
        return bound

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that a child must keep."""
        fds = tuple(fd for destination in self._destinations for fd in destination.fds)
        return fds if self.statsd is None else (*fds, self.statsd.fd)

    @property
    def files(self) -> dict[str, int]:
        """The descriptors of the files, by the key of the config."""
        keys = ("log.to", "log.access")
        named = zip(keys, self._destinations, strict=False)  # an access log that is off is none
        return {
            key: sink.fd for key, sink in named if isinstance(sink, Destination) and sink.path is not None
        }

    def reopen(self) -> Reopened:
        """Open the files again."""
        files = self._files()
        failures = [
            f"cannot reopen {file.path}, the old file is written on: {error.strerror}"
            for file in files
            if (error := file.reopen())
        ]
        return Reopened([file.fd for file in files], failures)

    def replace(self, fds: Sequence[int]) -> None:
        """Write on to these descriptors, which the master sent after it had reopened the files."""
        for destination, fd in zip(self._files(), fds, strict=True):
            destination.replace(fd)

    def flush(self, timeout_s: float = 1.0) -> None:
        """Write what is left, for the end of a process; wait no longer than this for each destination."""
        if self.statsd is not None:
            self.statsd.flush()
        if self.access is not None:
            self.access.flush()
            self.log.report_lost(self.access.destination.flush(timeout_s), "access log")
        self.log.report_lost(self.log.destination.flush(timeout_s))

    def _files(self) -> list[Destination]:
        return [
            sink for sink in self._destinations if isinstance(sink, Destination) and sink.path is not None
        ]
