"""The command ``prefork``: read the command line, run the command, turn failures into lines and a status."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from prefork.cli import arguments
from prefork.cli.arguments import Invocation
from prefork.config.jsonschema import jsonschema
from prefork.errors import ConfigError, ExitStatus, PreforkError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; a user's mistake never shows a traceback."""
    _fill_standard_descriptors()
    return report_failures(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    invocation = arguments.read(argv, os.environ)
    for note in invocation.notes:
        print(f"prefork: note: {note}", file=sys.stderr)
    return _dispatch(invocation)


def report_failures(command: Callable[[], int]) -> int:
    """Run a command and return the exit status; how it fails is told on stderr."""
    try:
        status = command()
        if sys.stdout is not None:  # started with a closed standard output
            sys.stdout.flush()
        return status
    except SystemExit as done:  # argparse printed the help or the version
        return int(done.code or 0)
    except PreforkError as error:
        # A config's mistakes begin with their place, so that editors can jump there.
        prefix = "" if isinstance(error, ConfigError) else "prefork: "
        print(f"{prefix}{error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("prefork: interrupted", file=sys.stderr)
        return ExitStatus.INTERNAL
    except BrokenPipeError:
        # The reader of stdout has seen enough (prefork schema | head); the interpreter must not flush to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.OK
    except Exception:
        traceback.print_exc()
        return ExitStatus.INTERNAL


def _fill_standard_descriptors() -> None:
    """Open what was closed by our parent (``2>&-``), or a listener would get the number that libraries print to."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            os.set_inheritable(fd, True)


def _dispatch(invocation: Invocation) -> int:
    """Run a command. Each imports what it needs: a server never asks itself, and who asks one need not be one."""
    if invocation.asked is not None:
        from prefork.cli.remote import commands

        return commands.run(invocation.asked)
    match invocation.command:
        case "schema":
            print(json.dumps(jsonschema(), indent=2))
            return ExitStatus.OK
        case "check":
            from prefork.cli import check

            return check.check(invocation)
        case _:
            from prefork.cli import run

            return run.run(invocation)
