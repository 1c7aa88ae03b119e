"""A request at the control socket, and what waits until it can be answered.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from prefork.errors import ExitStatus
from prefork.master.news import Happening


class Client(Protocol):
    """Who has asked."""

    is_closed: bool

    def progress(self, **fields: Any) -> None:
        """Tell how far the request is."""

    def end(self, message: str, status: ExitStatus = ExitStatus.OK, **fields: Any) -> None:
        """Tell its outcome."""


class Request:
    """What was asked for: ``command`` with ``arguments``; if not ``waits``, it is answered as soon as it has begun."""

    def __init__(self, client: Client, command: str, arguments: Mapping[str, Any], *, waits: bool) -> None:
        self.command = command
        self.arguments = arguments
        self.waits = waits
        self._client = client
        self._ended = False
        self._told: dict[object, tuple[str, str]] = {}
        """What was told last, of each pool."""

    @property
    def is_over(self) -> bool:
        """It was answered, or nobody waits for the answer any more."""
        return self._ended or self._client.is_closed

    def progress(self, phase: str, message: str, **fields: Any) -> None:
        """Tell how far it is, unless that was told already."""
        about = fields.get("pool")
        if not self.is_over and self._told.get(about) != (phase, message):
            self._told[about] = (phase, message)
            self._client.progress(phase=phase, message=message, **fields)

    def end(self, message: str, status: ExitStatus = ExitStatus.OK, **fields: Any) -> None:
        if not self.is_over:
            self._ended = True
            self._client.end(message, status, **fields)


class Wait:
    """Waits for the outcome of a request: looks whenever something may have changed, and hears the news."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def look(self) -> None:
        """Tell progress, or end the request. Called at the end of a turn."""

    def hear(self, happening: Happening) -> None:
        """Take what happens to the server."""

    def replaced(self) -> None:
        """This process is about to become another version, which knows nothing of the request."""
        self.request.end(
            "the server is just going on as another version: ask that one again", ExitStatus.INTERNAL
        )
