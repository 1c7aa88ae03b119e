"""Exit statuses and the exceptions that carry them; shared by every process.

Nothing here imports from the rest of prefork.
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit statuses of the master and of the commands; scripts depend on the numbers."""

    OK = 0
    INTERNAL = 1
    """An internal error of the master; for a command: it failed."""
    USAGE = 2
    """A mistake on the command line or in the config."""
    APPLICATION = 3
    """The application cannot be loaded, or its workers do not get ready."""
    LISTEN = 4
    """An address cannot be listened on."""
    NO_SERVER = 5
    """No running server was found, or it is not permitted to speak to it."""
    TIMEOUT = 6
    """Waiting timed out."""


class PreforkError(Exception):
    """A failure that is told to the user in plain lines, without a traceback, and ends with ``status``."""

    status = ExitStatus.INTERNAL


class UsageError(PreforkError):
    """A mistake on the command line."""

    status = ExitStatus.USAGE


class ConfigError(PreforkError):
    """One or more mistakes in the config: ``str(error)`` has one ``place: path: message`` line for each."""

    status = ExitStatus.USAGE


class ApplicationError(PreforkError):
    """The application cannot be loaded; the message may be a traceback of the application's own frames."""

    status = ExitStatus.APPLICATION


class ListenError(PreforkError):
    """A listener cannot be made: address in use, no permission, no such interface."""

    status = ExitStatus.LISTEN
