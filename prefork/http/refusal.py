"""The one exception of the HTTP layer: a request that is answered by the server itself."""

from __future__ import annotations


class BadRequest(Exception):
    """A request that never reaches the application: answer with ``status``, then close.

    ``reason`` is one line for the log and the client; it never holds raw bytes of the request,
    only their escaped form.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


def shown(raw: bytes, limit: int = 60) -> str:
    """Return ``raw`` quoted and escaped, cut to ``limit`` bytes, for use in a reason."""
    return ascii(raw[:limit])[1:] + ("..." if len(raw) > limit else "")
