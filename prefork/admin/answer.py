"""What the endpoints are made of: where their figures come from, and what they answer.

Runs in the admin process, in whichever thread serves the request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

UNAVAILABLE = "503 Service Unavailable"

Environ = Mapping[str, Any]
"""The request, as PEP 3333 has it."""


class Source(Protocol):
    """Where the figures come from. May be asked from several threads."""

    def status(self) -> dict[str, Any]:
        """Return the status document as it is shown: without query strings. Raises ``NotYet``."""

    def document(self) -> Mapping[str, Any] | None:
        """Return what the master has published, from which the status is made; None if it has not yet.

        See ``prefork.master.account``. It costs less than the status.
        """

    def is_master_alive(self) -> bool:
        """Tell whether the server has a master."""

    @property
    def metrics_folder(self) -> str | None:
        """Where each pool has a folder with the application's own metrics; None when they are not collected."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: 200, unless ``status`` says otherwise."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()
    """Beside those that every answer has."""

    @classmethod
    def of_text(cls, text: str, status: str = "200 OK", *headers: tuple[str, str]) -> Answer:
        """Return lines of text."""
        return cls(f"{text}\n".encode(), status=status, headers=headers)

    @classmethod
    def of_json(cls, value: object) -> Answer:
        """Return a JSON document."""
        return cls(json.dumps(value, separators=(",", ":")).encode() + b"\n", "application/json")


class NotYet(Exception):
    """The master has published nothing yet, or nothing that belongs together since this process began."""


Handler = Callable[[Source, Environ], Answer]
"""An endpoint: answers GET; of HEAD the server leaves the body out. Called only for who may see it."""
