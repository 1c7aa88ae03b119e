"""The part of the schema that says how long things may take."""

from __future__ import annotations

from dataclasses import dataclass

from prefork.config.composites import REQUIRED, ListOf, Section, key
from prefork.config.kinds import OrWord, Text
from prefork.config.quantities import Duration


@dataclass(frozen=True)
class TimeoutsOfPath:
    """Limits of the requests below one path."""

    path: str = key(
        REQUIRED,
        Text("a path that starts with /", r"/[^\0?#]*"),
        "That path and all below it: /a is /a and /a/b, but not /ab.",
    )
    request: float = key(REQUIRED, Duration(0.1, or_zero=True), "Instead of `timeouts.request`.")
    slow: float | None = key(
        None,
        Duration(0.05, or_zero=True),
        "Instead of `timeouts.slow`; that, but at most half of `request` here, when unset.",
    )


@dataclass(frozen=True)
class Timeouts:
    """How long things may take, in seconds; 0 is off."""

    boot: float = key("120s", Duration(1), "From the fork to ready, for a mold and for a worker.")
    request: float = key("60s", Duration(0.1, or_zero=True), "One request in the application; 0: no limit.")
    slow: float = key(
        "5s",
        Duration(0.05, or_zero=True),
        "A running request older than this is reported; 0: never. At most half of `request` when unset.",
    )
    graceful: float = key(
        "25s", Duration(0.1), "The whole budget of a graceful stop, `shutdown_delay` included."
    )
    shutdown_delay: float = key(
        "auto",
        OrWord("auto", 0.0, Duration(0)),
        "Serve on for so long after TERM. auto: 5s in Kubernetes (at most half of `graceful`), else 0.",
    )
    keep_alive: float = key(
        "75s", Duration(0.1, or_zero=True), "An idle connection stays open; 0: none does."
    )
    head: float = key("10s", Duration(0.1), "From the first byte of a request's head to its last.")
    body: float = key("30s", Duration(0.1), "Between two reads of a request's body.")
    send: float = key(
        "30s", Duration(0.1), "Between two writes of a response to a client that does not read."
    )
    queue: float = key(
        0,
        Duration(0.1, or_zero=True),
        "A request that has waited longer before a worker took its connection gets 503 instead of being run late; 0: "
        "none does.",
    )
    overrides: tuple[TimeoutsOfPath, ...] = key(
        [], ListOf(Section(TimeoutsOfPath)), "Other limits for some paths; the longest path that fits counts."
    )
