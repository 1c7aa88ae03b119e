"""The surroundings in which an application is imported: umask, environment, working directory, import path.

Runs in a mold, in a worker that loads the application for itself, and in the child of ``prefork check``;
never in the master. Enter before dropping privileges: an ``env_file`` may be readable by root alone.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from prefork.config import Pool
from prefork.errors import ConfigError

_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""What prometheus-client looks at when it is imported, and afterwards."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"(?:export\s+)?(?P<name>[^\s=]+)\s*=\s*(?P<value>.*)", re.DOTALL)
_SINGLE = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?")
_DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_COMMENT = re.compile(r"(?:^|\s)#.*")


def enter(pool: Pool) -> None:
    """Apply the pool's ``umask``, ``env_file``, ``env``, ``chdir`` and ``pythonpath`` to this process.

    What comes later wins: the inherited environment, the files in their order, ``env``. ``env_file`` is read
    before ``chdir``, so relative to where the server was started; ``pythonpath`` is relative to ``chdir``.
    The import path begins with ``pythonpath``, then ``chdir`` itself. PYTHONPATH is left as it is: other
    programs that the application starts have needs of their own. Raises ``ConfigError``.
    """
    if pool.umask is not None:
        os.umask(pool.umask)
    values: dict[str, str] = {}
    for path in pool.env_file:
        values.update(read_env_file(path))
    values.update(pool.env)
    os.environ.update(values)
    if "TZ" in values:
        time.tzset()
    try:
        os.chdir(pool.chdir)
    except OSError as error:
        raise ConfigError(f"chdir: cannot enter {pool.chdir}: {error.strerror}") from error
    folders = [*(os.path.abspath(folder) for folder in pool.pythonpath), os.getcwd()]
    sys.path[:] = [*dict.fromkeys(folders), *(entry for entry in sys.path if entry not in folders)]


def collect_metrics_in(folder: str) -> None:
    """Have prometheus-client keep what it counts in files in ``folder``, unless it was told of another place."""
    if not {_METRICS_FOLDER, _METRICS_FOLDER.lower()} & os.environ.keys():
        os.environ[_METRICS_FOLDER] = folder


def read_env_file(path: str) -> dict[str, str]:
    """Return the variables of a file with a ``NAME=VALUE`` on each line.

    Empty lines and lines that begin with ``#`` are skipped, ``export`` before a name is allowed. A value is
    bare (a ``#`` after a space begins a comment), in single quotes (as it stands) or in double quotes
    (``\\n``, ``\\t``, ``\\r``; a backslash before another character stands for that character). ``$`` means
    nothing special. Raises ``ConfigError`` with file and line, without the value: it may be a secret.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"env_file: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"env_file: {path} is not UTF-8 text") from error
    return dict(_assignments(path, text))


def _assignments(path: str, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        found = _ASSIGNMENT.fullmatch(line)
        if not found:
            raise ConfigError(f"{path}:{number}: expected NAME=VALUE")
        name, value = found["name"], found["value"]
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{path}:{number}: {name!r} is not a name; expected letters, digits and underscores"
            )
        if "\0" in value:
            raise ConfigError(f"{path}:{number}: {name}: a value cannot hold a NUL byte")
        yield name, _value(value, f"{path}:{number}: {name}")


def _value(text: str, place: str) -> str:
    if text.startswith("'"):
        found = _SINGLE.fullmatch(text)
    elif text.startswith('"'):
        found = _DOUBLE.fullmatch(text)
    else:
        return _COMMENT.sub("", text).rstrip()
    if not found:
        raise ConfigError(f"{place}: expected one closing quote at the end of the value")
    if text.startswith("'"):
        return found["text"]
    return _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), found["text"])
