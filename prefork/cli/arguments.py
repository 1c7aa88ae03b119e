"""Read a command line, and the environment's share of it, into an Invocation; opens no file."""

from __future__ import annotations

import argparse
import importlib.machinery
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from prefork import __version__
from prefork.cli import gunicorn
from prefork.cli.remote import asking
from prefork.cli.remote.asking import Asked
from prefork.config import Loaded, Override, load
from prefork.errors import UsageError
from prefork.suggest import did_you_mean, nearest

COMMANDS = ("run", "check", "schema")

# Commands of later versions, and what does it meanwhile.
LATER_COMMANDS: Mapping[str, str] = {
    "init": "write app.yaml by hand; prefork schema describes it",
}

USAGE = """\
prefork -c app.yaml               (the same as prefork run -c app.yaml)
       prefork shop.wsgi:application [option ...]
       prefork check -c app.yaml
       prefork schema
       prefork status | top | reload | stop | upgrade | diff | scale | recycle | stacks | reopen-logs"""

DESCRIPTION = """\
Serve a Python web application from pre-forked worker processes.

commands:
  run                   serve in the foreground; the default
  check                 validate, load the application in a child process, print the effective config
  schema                print the JSON Schema of the config, for editors
  status, top, reload, stop, upgrade, diff, scale, recycle, stacks, reopen-logs
                        to a running server; prefork status --help says more

An application is module:attr, module, "module:create(args)" or path/wsgi.py:attr."""

EPILOG = """\
Values come from, in rising order: defaults, files, PREFORK_CMD_ARGS (options as on the command line),
command line. PREFORK_CONFIG (files separated by ":") stands for -c when none is given.

Exit status: 0 stopped as asked, 1 internal error, 2 mistake on the command line or in the config,
3 the application cannot be loaded or its workers do not get ready, 4 cannot listen."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command line, read; ``overrides`` in rising order of precedence."""

    command: str = "run"
    files: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()
    notes: tuple[str, ...] = ()
    load_app: bool = True
    show_secrets: bool = False
    asked: Asked | None = None
    """The command to a running server, if it is one."""

    def load(self) -> Loaded:
        """Read and validate the config, each time anew. Raise ConfigError."""
        return load(self.files, self.overrides)


def read(argv: Sequence[str], environment: Mapping[str, str]) -> Invocation:
    """Return what the command line asks for, over what the environment gives. Raise UsageError.

    Only ``PREFORK_CONFIG`` and ``PREFORK_CMD_ARGS`` are read: a Kubernetes service that is called "prefork"
    sets other variables with this prefix. ``--help`` and ``--version`` print and raise SystemExit.
    """
    if asking.is_asked(argv):
        return _read_asked(argv, environment)
    asked = _read(argv)
    if asked.command == "schema":
        return asked
    given = _from_environment(environment)
    files = asked.files or given.files or _files_of(environment)
    overrides = (*given.overrides, *asked.overrides)
    if not files and not any(override.path.partition(".")[0] in ("app", "pools") for override in overrides):
        near = "; did you mean -c app.yaml?" if os.path.exists("app.yaml") else ""
        raise UsageError(f"nothing to serve: give -c FILE or an application{near}")
    return replace(asked, files=files, overrides=overrides, notes=(*given.notes, *asked.notes))


def _read_asked(argv: Sequence[str], environment: Mapping[str, str]) -> Invocation:
    asked = asking.read(argv)
    if not asked.files and asked.control is None:
        asked = replace(asked, files=_from_environment(environment).files or _files_of(environment))
    return Invocation(command=asked.command, files=asked.files, asked=asked)


def _files_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(filter(None, environment.get("PREFORK_CONFIG", "").split(":")))


def _from_environment(environment: Mapping[str, str]) -> Invocation:
    text = environment.get("PREFORK_CMD_ARGS", "")
    try:
        given = _read(shlex.split(text), command_allowed=False)
    except (ValueError, UsageError) as error:
        raise UsageError(f"PREFORK_CMD_ARGS: {error}") from None
    named = (replace(each, origin=f"PREFORK_CMD_ARGS {each.origin}") for each in given.overrides)
    return replace(given, overrides=tuple(named))


def _read(argv: Sequence[str], *, command_allowed: bool = True) -> Invocation:
    parser = _parser()
    options, words = parser.parse_known_args(argv)
    if "--" in words:
        words.remove("--")
    if words and command_allowed:
        _refuse_later_command(words[0])
        if words[0] in asking.COMMANDS:
            raise UsageError(
                f"{words[0]}: a command to a running server takes no options of another kind before it; "
                f"write prefork {words[0]} first"
            )
    for word in words:
        if word.startswith("-"):
            name = word.partition("=")[0]
            raise UsageError(f"unknown option {name}{did_you_mean(name, parser.option_names())}")
    command = "run"
    if words and command_allowed and _is_command(words[0]):
        command = words.pop(0)
    if len(words) > (0 if command == "schema" else 1):
        raise UsageError(f'unexpected argument "{words[-1]}" after {command}; prefork --help shows the forms')
    if command != "check" and (options.no_app or options.show_secrets):
        raise UsageError("--no-app and --show-secrets belong to the command check")
    return Invocation(
        command=command,
        files=tuple(_yaml_file(name) for name in options.config),
        overrides=(
            *(Override("app", word, "command line") for word in words),
            *gunicorn.overrides(options),
            *(Override.from_set(text) for text in options.set),
        ),
        notes=tuple(gunicorn.notes(options)),
        load_app=not options.no_app,
        show_secrets=options.show_secrets,
    )


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are exceptions."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def option_names(self) -> list[str]:
        return list(self._option_string_actions)


def _parser() -> _Parser:
    parser = _Parser(
        prog="prefork",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"prefork {__version__}")
    config = parser.add_argument_group("config")
    config.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="YAML file; repeatable: mappings merge, lists and scalars replace, null resets",
    )
    config.add_argument(
        "--set",
        metavar="KEY=YAML",
        action="append",
        default=[],
        help="set a key, such as timeouts.request=5m",
    )
    check = parser.add_argument_group("check")
    check.add_argument("--no-app", action="store_true", help="do not load the application")
    check.add_argument("--show-secrets", action="store_true", help="print secrets instead of masking them")
    gunicorn.add_flags(parser)
    return parser


def _refuse_later_command(word: str) -> None:
    if word in LATER_COMMANDS:
        raise UsageError(f"{word}: not available in this version; {LATER_COMMANDS[word]}")


def _is_command(word: str) -> bool:
    """Tell a command from an application. Raise UsageError for a misspelt command."""
    if word in COMMANDS:
        return True
    if any(mark in word for mark in ".:/") or _is_module(word):
        return False
    if near := nearest(word, (*COMMANDS, *asking.COMMANDS, *LATER_COMMANDS)):
        raise UsageError(
            f'"{word}" is neither a command nor a module; did you mean "{near}"?\n'
            f'A module that is found only through chdir or pythonpath is written "{word}:application".'
        )
    return False


def _is_module(name: str) -> bool:
    if os.path.isdir(name) or os.path.isfile(f"{name}.py"):
        return True
    return name.isidentifier() and importlib.machinery.PathFinder.find_spec(name) is not None


def _yaml_file(name: str) -> str:
    if name.endswith(".py") or name.startswith("python:"):
        raise UsageError(
            f"-c {name}: prefork reads YAML, not Python; move the settings to a file such as app.yaml\n"
            "Most flags of gunicorn work here; prefork --help names the config key of each."
        )
    return name.removeprefix("file:")
