"""Logs: events of the server, the access log, and the streams that applications write to.

Shared by every process: the master opens the destinations, all inherit them, each writes its own lines.
"""

from prefork.log.access import AccessLog
from prefork.log.access_format import AccessEntry, compile_access_format
from prefork.log.capture import Capture
from prefork.log.destination import Destination
from prefork.log.log import LEVELS, Log
from prefork.log.logs import Logs
from prefork.log.redact import query_redactor
from prefork.log.stream import ErrorStream

__all__ = [
    "LEVELS",
    "AccessEntry",
    "AccessLog",
    "Capture",
    "Destination",
    "ErrorStream",
    "Log",
    "Logs",
    "compile_access_format",
    "query_redactor",
]
