"""Syslog as a destination: a daemon of this machine behind a socket such as /dev/log, or one of the network by UDP.

A local daemon gets the form that all of them know from syslog(3); the network gets RFC 5424 over UDP (RFC 5426). An
event of several lines becomes several messages, for many daemons cut or escape line ends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from time import localtime, strftime

from prefork.errors import ConfigError
from prefork.log.daemons import SEVERITIES, find_host
from prefork.log.datagrams import Datagrams
from prefork.log.format import Event, body, timestamp

_FACILITY = 3 << 3
"""daemon"""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""In English, whatever the locale of the application is."""
_MOST_BYTES = 8192
"""Of one message; daemons take less or more, and cut what they do not take."""


def open_syslog(where: str, key: str) -> Datagrams:
    """Return the daemon at a path, ``host``, ``host:port`` or ``[v6]:port``.

    Raises ``ConfigError``, which names ``key``.
    """
    if "/" in where:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(where)
            except OSError as error:
                raise ConfigError(f"{key}: cannot reach syslog at {where}: {error.strerror}") from error
        return Datagrams(socket.AF_UNIX, where, local)
    try:
        found = find_host(where, 514)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{key}: syslog:{where}: cannot find this host: {error}") from error
    if found is None:
        raise ConfigError(f"{key}: syslog:{where}: expected a path, host, host:port or [v6]:port")
    family, address = found
    host = socket.gethostname() or "-"

    def remote(event: Event, line: Callable[[Event], str]) -> Sequence[bytes]:
        head = f"<{_priority(event)}>1 {timestamp(event.time_s)} {host} prefork {_pid(event)} {event.name} - "
        return _messages(head, event, line)

    return Datagrams(family, address, remote)


def local(event: Event, line: Callable[[Event], str]) -> Sequence[bytes]:
    """Return messages as syslog(3) makes them: ``<30>Nov 24 11:02:03 prefork[411]: ready``."""
    now = localtime(event.time_s)
    date = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} {strftime('%H:%M:%S', now)}"
    head = f"<{_priority(event)}>{date} prefork[{_pid(event)}]: "
    return _messages(head, event, line)


def _messages(head: str, event: Event, line: Callable[[Event], str]) -> list[bytes]:
    made = line(event)
    lines = [made] if made[:1] == "{" or event.name == "access" else body(event)
    return [f"{head}{each}".encode("utf-8", "backslashreplace")[:_MOST_BYTES] for each in lines]


def _priority(event: Event) -> int:
    return _FACILITY | SEVERITIES[event.level]


def _pid(event: Event) -> object:
    return event.fields.get("pid") or os.getpid()
