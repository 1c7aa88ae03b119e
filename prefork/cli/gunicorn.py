"""The command line of gunicorn, as one table: each flag a fixed alias of a config key."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prefork.config import Override
from prefork.errors import UsageError


def _as_is(text: str) -> object:
    return text


def _log_file(dash: str) -> Callable[[str], object]:
    """Return a converter to the config's destinations, where a file has a slash."""
    return lambda text: dash if text == "-" else text if "/" in text else f"./{text}"


def _octal(text: str) -> object:
    """Read a mode as gunicorn does, octal after a leading 0 and else decimal; write it as the config does."""
    try:
        number = int(text, 8 if text.startswith("0") and text.isdigit() else 0)
    except ValueError:
        raise UsageError(f'--umask: expected a number such as 022, got "{text}"') from None
    return f"{number:04o}"


def _comma_separated(text: str) -> object:
    return [item for item in text.split(",") if item]


def _trusted(text: str) -> object:
    return (
        ["0.0.0.0/0", "::/0", "unix"] if text.strip() == "*" else [item.strip() for item in text.split(",")]
    )


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag that takes a value for a key."""

    names: tuple[str, ...]
    metavar: str
    key: str
    convert: Callable[[str], object] = _as_is


FLAGS = (
    Flag(("-w", "--workers"), "N", "workers"),
    Flag(("--threads",), "N", "threads"),
    Flag(("-t", "--timeout"), "SECONDS", "timeouts.request"),
    Flag(("--graceful-timeout",), "SECONDS", "timeouts.graceful"),
    Flag(("--keep-alive",), "SECONDS", "timeouts.keep_alive"),
    Flag(("--max-requests",), "N", "recycle.requests"),
    Flag(("--access-logfile",), "FILE", "log.access", _log_file("stdout")),
    Flag(("--access-logformat",), "FORMAT", "log.access_format"),
    Flag(("--error-logfile", "--log-file"), "FILE", "log.to", _log_file("stderr")),
    Flag(("--log-level",), "LEVEL", "log.level"),
    Flag(("--chdir",), "FOLDER", "chdir"),
    Flag(("--pythonpath",), "FOLDERS", "pythonpath", _comma_separated),
    Flag(("-p", "--pid"), "FILE", "pidfile"),
    Flag(("-n", "--name"), "NAME", "name"),
    Flag(("--certfile",), "FILE", "tls.cert"),
    Flag(("--keyfile",), "FILE", "tls.key"),
    Flag(("-u", "--user"), "USER", "user"),
    Flag(("-g", "--group"), "GROUP", "group"),
    Flag(("-m", "--umask"), "MODE", "umask", _octal),
    Flag(("--forwarded-allow-ips",), "ADDRESSES", "proxy.trust", _trusted),
    Flag(("--statsd-host",), "ADDRESS", "statsd.address"),
)

REFUSED: Mapping[str, str] = {
    "daemon": "prefork stays in the foreground; let systemd or a container run it, or use nohup prefork … &",
    "reload_on_change": "not available in this version yet; send HUP to the master after a change",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of gunicorn's, as a group of their own."""
    group = parser.add_argument_group("gunicorn's command line, each flag an alias of a config key")
    group.add_argument("-b", "--bind", metavar="ADDRESS", action="append", help="listen (repeatable)")
    group.add_argument("--backlog", metavar="N", help="backlog of each -b")
    for flag in FLAGS:
        group.add_argument(*flag.names, metavar=flag.metavar, dest=flag.key, help=flag.key)
    group.add_argument(
        "--max-requests-jitter", metavar="N", help="recycle.jitter, as a share of --max-requests"
    )
    group.add_argument("--preload", action="store_true", help="preload: true (the default is auto)")
    group.add_argument("-e", "--env", metavar="NAME=VALUE", action="append", help="env (repeatable)")
    hidden = argparse.SUPPRESS
    group.add_argument("-k", "--worker-class", help=hidden)
    group.add_argument("--worker-tmp-dir", help=hidden)
    group.add_argument("-D", "--daemon", action="store_true", help=hidden)
    group.add_argument("--reload", action="store_true", dest="reload_on_change", help=hidden)


def reference() -> str:
    """Return the flags as a Markdown table, for the documentation."""
    aliases = [
        (("-b", "--bind"), "listen"),
        (("--backlog",), "listen.backlog"),
        *((flag.names, flag.key) for flag in FLAGS),
        (("--max-requests-jitter",), "recycle.jitter"),
        (("--preload",), "preload: true"),
        (("-e", "--env"), "env"),
    ]
    rows = [f"| {', '.join(f'`{name}`' for name in names)} | `{key}` |" for names, key in aliases]
    return "\n".join(["| flag | key |", "|---|---|", *rows])


def overrides(options: argparse.Namespace) -> Iterator[Override]:
    """Yield the overrides of the given flags. Raise UsageError for those that prefork cannot take."""
    given = {name: value for name, value in vars(options).items() if value not in (None, False)}
    _refuse(given)
    for flag in FLAGS:
        if flag.key in given:
            yield Override(flag.key, flag.convert(given[flag.key]), flag.names[-1])
    if options.max_requests_jitter:
        share = _jitter(options.max_requests_jitter, given.get("recycle.requests"))
        yield Override("recycle.jitter", share, "--max-requests-jitter")
    if options.preload:
        yield Override("preload", True, "--preload")
    if options.env:
        yield Override("env", dict(_variable(text) for text in options.env), "--env")
    if options.bind:
        yield Override("listen", [_listen(text, options.backlog) for text in options.bind], "--bind")
    elif options.backlog:
        raise UsageError("--backlog: give the address too, with -b, or set listen.backlog in the config file")


def notes(options: argparse.Namespace) -> Iterator[str]:
    """Yield a note for each flag that is accepted without effect."""
    if options.worker_class:
        yield f"-k {options.worker_class} has no effect: set threads for threads, workers for processes"
    if options.worker_tmp_dir:
        yield "--worker-tmp-dir has no effect: prefork has no heartbeat files"


def _refuse(given: Mapping[str, object]) -> None:
    for dest, reason in REFUSED.items():
        if dest in given:
            flag = "--reload" if dest == "reload_on_change" else f"--{dest}"
            raise UsageError(f"{flag}: {reason}")
    if given.get("worker_class", "sync") not in ("sync", "gthread"):
        raise UsageError(
            f"--worker-class {given['worker_class']}: prefork has one kind of worker\n"
            "Leave it out and raise --workers or --threads; wrap an ASGI application with the package a2wsgi."
        )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f'--env: expected NAME=VALUE, got "{text}"')
    return name, value


def _jitter(jitter: str, requests: object) -> str:
    """Return as a share of the requests what gunicorn takes as a number of them."""
    if not (isinstance(requests, str) and requests.isdecimal()):
        raise UsageError("--max-requests-jitter: give --max-requests too, or set recycle.jitter")
    if not jitter.isdecimal():
        raise UsageError(f'--max-requests-jitter: expected a number of requests, got "{jitter}"')
    return f"{100 * min(1.0, int(jitter) / max(1, int(requests))):.3f}%"


def _listen(address: str, backlog: str | None) -> object:
    address = address.replace("fd://", "fd:", 1)
    return {"address": address, "backlog": backlog} if backlog else address
