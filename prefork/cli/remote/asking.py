"""The command lines of commands to a running server. Opens no file. Runs in a command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from prefork.config.units import parse_duration
from prefork.errors import UsageError
from prefork.suggest import did_you_mean

COMMANDS = {
    "status": "show pools, workers, what they run, and the last deaths",
    "top": "the same live, with what passes through; q quits",
    "reload": "read config and application anew; tells what has changed, or why it failed",
    "stop": "stop gracefully",
    "upgrade": "go on as the version of prefork that is installed now",
    "diff": "show what a reload would change",
    "scale": "[POOL=]N: have so many workers until the next reload",
    "recycle": "SLOT or --all: replace workers by fresh ones",
    "stacks": "[SLOT]: show what each worker is doing, line by line",
    "reopen-logs": "open the log files again",
}
LOOKING = frozenset({"status", "top", "diff", "stacks"})
"""Those that change nothing."""
WAITING = frozenset({"reload", "stop", "upgrade", "scale", "recycle"})
QUICK_S, WAITING_S = 10.0, 300.0
"""How long an answer may take, if --timeout does not say."""

_WITH_JSON = tuple(name for name in COMMANDS if name != "top")
_VALUES = ("-c", "--config", "--control", "--timeout", "-t")
"""Options that are followed by a value."""
_SWITCHES = ("--no-wait", "--json", "--watch", "--all")


@dataclass(frozen=True, slots=True)
class Asked:
    """A command to a running server; ``arguments`` are those of the protocol."""

    command: str
    files: tuple[str, ...] = ()
    control: str | None = None
    timeout_s: float = WAITING_S
    json: bool = False
    watches: bool = False
    """Ask again each second."""
    waits: bool = True
    arguments: dict[str, Any] = field(default_factory=dict)


def is_asked(argv: Sequence[str]) -> bool:
    """Tell whether the first word of a command line is such a command; before it may be options of theirs only."""
    words = iter(argv)
    for word in words:
        if word in _VALUES:
            next(words, None)
        elif not word.startswith("-"):
            return word in COMMANDS
        elif word.partition("=")[0] not in (*_VALUES, *_SWITCHES):
            return False  # who knows whether the next word is its value
    return False


def read(argv: Sequence[str]) -> Asked:
    """Return what is asked. Raises ``UsageError``."""
    options = _parser().parse_intermixed_args(list(argv))
    command: str = options.command
    if options.no_wait and command not in WAITING:
        raise UsageError(f"--no-wait: {command} has nothing to wait for")
    for option, given, commands in (
        ("--watch", options.watch, ("status",)),
        ("--json", options.json, _WITH_JSON),
    ):
        if given and command not in commands:
            raise UsageError(f"{option} belongs to {', '.join(commands)}, not to {command}")
    timeout_s = WAITING_S if command in WAITING else QUICK_S
    if options.timeout is not None:
        parsed = parse_duration(_number(options.timeout))
        if not parsed or parsed < 0:
            raise UsageError(f'--timeout: expected a duration such as 30s or 5m, got "{options.timeout}"')
        timeout_s = parsed
    return Asked(
        command,
        tuple(options.config),
        options.control,
        timeout_s,
        options.json,
        options.watch,
        not options.no_wait,
        _arguments(command, options),
    )


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _arguments(command: str, options: argparse.Namespace) -> dict[str, Any]:
    words: list[str] = options.words
    if options.all and command != "recycle":
        raise UsageError(f"--all belongs to recycle, not to {command}")
    match command:
        case "scale":
            return _scale(_one(words, "scale: expected a number of workers, such as 4, or POOL=4"))
        case "recycle":
            if options.all and not words:
                return {"all": True}
            if options.all:
                raise UsageError("recycle: expected a slot or --all, got both")
            return {"slot": _one(words, "recycle: expected a slot such as shop.0, or --all")}
        case "stacks" if words:
            return {"slot": _one(words, "stacks: expected one slot, or none for all")}
    if words:
        raise UsageError(f'unexpected argument "{words[0]}" after {command}')
    return {}


def _scale(text: str) -> dict[str, Any]:
    pool, equals, number = text.rpartition("=")
    if not (number.isascii() and number.isdigit() and len(number) < 16 and bool(pool) == bool(equals)):
        raise UsageError(f'scale: expected a number of workers, such as 4, or POOL=4, got "{text}"')
    return {"workers": int(number), **({"pool": pool} if pool else {})}


def _one(words: Sequence[str], expected: str) -> str:
    if len(words) != 1:
        raise UsageError(expected + (f", got {' '.join(words)}" if words else ""))
    return words[0]


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are exceptions."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            name = unknown.split()[0].partition("=")[0]
            known = [option for option in self._option_string_actions if option.startswith("--")]
            raise UsageError(f"this command has no option {name}{did_you_mean(name, known)}")
        raise UsageError(message)


def _parser() -> _Parser:
    commands = "\n".join(f"  {name:<12} {meaning}" for name, meaning in COMMANDS.items())
    parser = _Parser(
        prog="prefork",
        usage="prefork COMMAND [-c FILE | --control PATH] [option ...]",
        description=f"Commands to a running server.\n\n{commands}",
        epilog="Without -c and --control it is the only server that runs here.\n\n"
        "Exit status: 0 done, 1 failed, 2 mistake on the command line or in the config, 3 the application cannot\n"
        "be loaded, 4 cannot listen, 5 no server or not permitted, 6 timed out.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", metavar="COMMAND")
    parser.add_argument("words", metavar="ARGUMENT", nargs="*")
    parser.add_argument(
        "-c", "--config", metavar="FILE", action="append", default=[], help="the server of this config"
    )
    parser.add_argument("--control", metavar="PATH", help="the server with this control socket")
    parser.add_argument(
        "-t", "--timeout", metavar="DURATION", help="how long to wait, such as 30s; 5m when unset"
    )
    parser.add_argument("--no-wait", action="store_true", help="return as soon as it has begun")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.add_argument("--watch", action="store_true", help="status: again each second, until Ctrl-C")
    parser.add_argument("--all", action="store_true", help="recycle: every worker")
    return parser
