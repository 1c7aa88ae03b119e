"""Logs: events of the server, the access log, and the streams that applications write to.

Shared by every process: the master opens the destinations, all inherit them, each writes its own lines.
The streams are for molds and workers only: ``prefork.log.stream`` and ``prefork.log.capture``.
"""

from prefork.log.access import AccessLog
from prefork.log.access_format import AccessEntry, compile_access_format
from prefork.log.destination import Destination
from prefork.log.log import LEVELS, Log
from prefork.log.logs import Logs
from prefork.log.redact import query_redactor

__all__ = [
    "LEVELS",
    "AccessEntry",
    "AccessLog",
    "Destination",
    "Log",
    "Logs",
    "compile_access_format",
    "query_redactor",
]
