"""The schema: one table of all keys, as the frozen dataclasses that the rest of prefork uses.

Each field says its default (in the config's notation), what it may be, and in one line what it means. From
this come validation, the typed objects, the JSON Schema and ``docs/reference/config.md``. Durations are float
seconds and sizes int bytes in the objects. Fields without ``key`` are not written in a file. ``LATER`` names
keys that are planned and that this version has not.
"""

# ruff: noqa: RUF009 (key() returns a dataclass field)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from prefork.config.composites import REQUIRED, ListOf, MapOf, OrSection, Section, Shorthand, key
from prefork.config.kinds import Boolean, Choice, Integer, OrWord, Text
from prefork.config.listening import Admin, Listen, Tls
from prefork.config.metrics import Metrics
from prefork.config.names import AccessFormat, Application, TrustedPeer
from prefork.config.quantities import Batch, Mode, Size
from prefork.config.staffing import Recycle, WorkerRange
from prefork.config.timing import Timeouts

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

NAME = Text("a name of letters, digits, - and _ that starts with a letter", r"[A-Za-z][A-Za-z0-9_-]{0,47}")
_PATH = Text("a path", r"[^\0]+")
_FILE = Text("a path with a / in it", r"(?!syslog:)[^\0]*/[^\0]*[^/\0]")
_ACCOUNT = Text("a name or a number", r"[A-Za-z0-9_][A-Za-z0-9_.-]*", any_scalar=True)
_HOOK = Text("module:callable", r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_LINE = Text("one line of text", r"[^\0\r\n]*", any_scalar=True)
_SYSLOG = r"syslog:(?:/[^\0]*[^/\0]|(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?)"
_DESTINATION = Choice(
    ("stderr", "stdout", "off", "journal"),
    Text("a path with a / in it, or syslog: and a path, host or host:port", rf"{_SYSLOG}|{_FILE.pattern}"),
)


@dataclass(frozen=True)
class Limits:
    """How big things may be."""

    request_line: int = key("8KiB", Size(256, 64 * KIB), "The request line; longer: 414.")
    fields: int = key(100, Integer(1, 1000), "Header fields of a request; more: 431.")
    head: int = key("32KiB", Size(512, MIB), "The whole head of a request; longer: 431.")
    body: int = key("100MiB", Size(0, 1024 * GIB), "The body of a request; longer: 413.")
    body_memory: int = key("1MiB", Size(0, 64 * MIB), "What is held in memory of a request's body.")
    response_memory: int = key(
        "1MiB", Size(0, GIB), "What is held in memory of one response for a client that reads slowly."
    )
    memory: int = key(
        "256MiB",
        Size(MIB, 1024 * GIB),
        "What a worker holds in memory of requests and responses together; an eighth of it of heads alone.",
    )
    spool: int = key(
        "1GiB",
        Size(0, 1024 * GIB),
        "What a worker holds in temporary files of what is beyond that; 0: no such files. A longer body: 413.",
    )
    connections: int = key(10000, Integer(1, 1_000_000), "Open connections of one worker.")


@dataclass(frozen=True)
class Proxy:
    """What proxies in front may say of a request."""

    trust: tuple[str, ...] = key(
        ["127.0.0.1", "::1", "unix"],
        ListOf(TrustedPeer()),
        "Proxies that are believed: addresses, networks, and unix for every peer on a unix socket.",
    )
    forwarded: str = key(
        "x-forwarded",
        Choice(("x-forwarded", "forwarded", "off")),
        "Fields that are believed: X-Forwarded-For and others, or Forwarded (RFC 7239).",
    )
    use: tuple[str, ...] = key(
        ["for", "proto"],
        ListOf(Choice(("for", "proto", "host", "port", "prefix"))),
        "Parts of them that are used: REMOTE_ADDR, wsgi.url_scheme, host, port, SCRIPT_NAME.",
    )
    untrusted: str = key(
        "drop",
        Choice(("drop", "pass")),
        "Such fields from anybody else: taken out, or left to the application.",
    )
    allow_names: tuple[str, ...] = key(
        [],
        ListOf(
            Text(
                "the name of a header with an underscore in it",
                r"(?!(?i:transfer_encoding)\Z)[!#$%&'*+\-.^`|~0-9A-Za-z]*_[!#$%&'*+\-.^_`|~0-9A-Za-z]*",
            )
        ),
        "Header names with underscores that a trusted proxy may send; all others are dropped.",
    )


@dataclass(frozen=True)
class RequestId:
    """The id of each request."""

    trust: bool = key(True, Boolean(), "Take the X-Request-ID of a trusted proxy.")
    respond: bool = key(False, Boolean(), "Send X-Request-ID with each response of the application.")


_HEALTH = Text('"" or a path that starts with /', r"|/[!-~]*")


@dataclass(frozen=True)
class Health:
    """Paths that prefork answers itself, without the application."""

    live: str = key("", _HEALTH, "Answers 200 while a worker serves.")
    ready: str = key("", _HEALTH, "The same, and 503 as soon as the server stops, `shutdown_delay` included.")


@dataclass(frozen=True)
class Reload:
    """How a reload goes."""

    batch: float | int = key(
        "25%", Batch(), "Workers replaced at a time: a share of them (a fraction), or a number."
    )


@dataclass(frozen=True)
class Pool:
    """One application with its listeners and its workers."""

    name: str
    app: str = key(REQUIRED, Application(), "The application: a WSGI callable, or a subclass of Server.")
    root_path: str = key(
        "",
        Text('"" or a path that starts with / and does not end with /', r"|(/[^/\0]+)+"),
        "SCRIPT_NAME: the path below which the application is mounted.",
    )
    listen: tuple[Listen, ...] = key(
        ["127.0.0.1:8000"],
        ListOf(Shorthand(Section(Listen), "address"), at_least=1),
        "Where to listen. 0.0.0.0:$PORT when PORT is set and the key is not.",
    )
    workers: int | WorkerRange | Literal["auto"] = key(
        "auto",
        OrSection(
            OrWord("auto", "auto", Integer(1, 1024)),
            Section(WorkerRange),
            "a mapping with min, max and start",
        ),
        "Worker processes. auto: WEB_CONCURRENCY when set, else what the CPU quota and the memory give. A mapping: "
        "as many as the load needs.",
    )
    threads: int = key(1, Integer(1, 256), "Requests that one worker runs at a time.")
    preload: bool | Literal["auto"] = key(
        "auto",
        OrWord("auto", "auto", Boolean()),
        "Load the application once and fork it. auto: unless its import leaves threads or connected sockets.",
    )
    chdir: str = key(".", _PATH, "Working directory of the application.")
    pythonpath: tuple[str, ...] = key(
        [], ListOf(_PATH), "Directories in front of sys.path, relative to `chdir`."
    )
    env: Mapping[str, str] = key(
        {},
        MapOf(Text("text or a number", any_scalar=True), r"[^=\0]+", "a variable's name"),
        "Environment variables of the application.",
    )
    env_file: tuple[str, ...] = key([], ListOf(_PATH), "Files of NAME=value lines, read before `env`.")
    user: str | None = key(None, _ACCOUNT, "Run the application as this user.")
    group: str | None = key(None, _ACCOUNT, "Run the application as this group; the user's own when unset.")
    umask: int | None = key(None, Mode(), "File mode creation mask of the application; inherited when unset.")
    tmp_dir: str | None = key(
        None,
        _PATH,
        "Directory of temporary files for large bodies, relative to `chdir`; $TMPDIR or /tmp when unset.",
    )
    tls: Tls | None = key(None, Section(Tls), "TLS on the listeners; none when unset.")
    timeouts: Timeouts = key({}, Section(Timeouts), "How long things may take.")
    limits: Limits = key({}, Section(Limits), "How big things may be.")
    proxy: Proxy = key({}, Section(Proxy), "What proxies in front may say of a request.")
    request_id: RequestId = key({}, Section(RequestId), "The id of each request.")
    health: Health = key({}, Section(Health), "Paths that prefork answers itself, without the application.")
    recycle: Recycle = key({}, Section(Recycle), "When a worker is replaced by a fresh one.")
    reload: Reload = key({}, Section(Reload), "How a reload goes.")
    share_connections: bool = key(
        True,
        Boolean(),
        "Hand kept-alive connections from a worker that leaves, or is busy, to another.",
    )
    hooks: Mapping[str, tuple[str, ...]] = key(
        {},
        MapOf(
            ListOf(_HOOK),
            names=(
                "mold_loaded",
                "before_fork",
                "after_fork",
                "ssl_context",
                "worker_ready",
                "worker_exit",
                "request_started",
                "request_finished",
                "deadline",
                "server_ready",
                "worker_gone",
                "server_exit",
            ),
        ),
        "Callables that are told what happens.",
    )
    server_header: str | None = key(
        "prefork",
        OrWord("off", None, Text("one line of ASCII text", r"[!-~]([ -~]*[!-~])?")),
        "The Server header of responses; off: none.",
    )
    LATER: ClassVar = ("warmup",)


@dataclass(frozen=True)
class Log:
    """What is logged, how, and where to."""

    level: str = key(
        "info", Choice(("debug", "info", "warning", "error", "critical")), "Events below are left out."
    )
    format: str = key("text", Choice(("text", "json")), "Form of events.")
    to: str = key("stderr", _DESTINATION, "Where events go.")
    access: str = key("stdout", _DESTINATION, "Where the access log goes.")
    access_format: str = key(
        "auto",
        AccessFormat(("auto", "common", "combined", "json")),
        "Form of the access log. auto: json with `format: json`, else combined.",
    )
    access_when: str = key("all", Choice(("all", "errors", "slow")), "Which requests the access log has.")
    access_skip: tuple[str, ...] = key(
        [],
        ListOf(Text("a path or glob that starts with / or *", r"[/*][^\0]*")),
        "Paths it has not: a path and all below it, or a glob.",
    )
    redact_query: tuple[str, ...] = key(
        [], ListOf(_LINE), "Query parameters whose values are hidden in logs."
    )
    fields: Mapping[str, str] = key({}, MapOf(_LINE), "Fields that are added to each JSON line.")
    rename: Mapping[str, str] = key({}, MapOf(_LINE), "Other names for fields of JSON lines.")
    capture_output: bool = key(False, Boolean(), "Turn what the application prints into events.")


@dataclass(frozen=True)
class Statsd:
    """A daemon that collects figures."""

    address: str = key(
        REQUIRED,
        Text(
            "host:port, [v6]:port or unix:PATH",
            r"unix:/[^\0]+|(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?",
        ),
        "Where to send to, by UDP or to a unix socket; the port is 8125 when unset.",
    )
    prefix: str = key(
        "", Text("a name", r"[A-Za-z0-9_.-]*"), "What each name begins with, before `.gunicorn.`."
    )
    tags: Mapping[str, str] = key({}, MapOf(_LINE), "Tags of each figure, as DogStatsD has them.")


@dataclass(frozen=True)
class Config:
    """The whole config: what concerns the server, and its pools."""

    name: str = key(
        None,
        NAME,
        "Name in titles, logs and metrics; when unset the application's top package, or the first pool.",
        on_reload=False,
    )
    pools: tuple[Pool, ...] = ()
    pidfile: str | None = key(None, _PATH, "File that gets the master's process id.", on_reload=False)
    log: Log = key({}, Section(Log), "What is logged, how, and where to.", on_reload=False)
    metrics: Metrics = key({}, Section(Metrics), "What is measured for `/metrics`.", on_reload=False)
    admin: Admin | None = key(
        None, Section(Admin), "A process of its own that shows how the server does; none when unset."
    )
    control: str = key(
        "auto",
        Choice(("auto", "off"), _FILE),
        "The socket that commands such as `prefork status` speak to: [where auto puts it](control.md).",
        on_reload=False,
    )
    statsd: Statsd | None = key(
        None, Section(Statsd), "Figures of each request by statsd, as gunicorn sends them.", on_reload=False
    )
    files: tuple[str, ...] = ()
    digest: str = ""
    secrets: frozenset[str] = frozenset()
    """Paths of values that came from files: not to be shown."""
    LATER: ClassVar = ("dev",)
