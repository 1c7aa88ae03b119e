"""From files and overrides to a ``Config``: read, merge, interpolate, validate; all mistakes at once.

Runs in the master and in commands. It never blocks: only regular files of bounded size are read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from prefork.config import yaml
from prefork.config.assemble import assemble
from prefork.config.interpolate import Interpolation
from prefork.config.merge import Override, merge_all
from prefork.config.nodes import Node, Place, Report, Table, describe
from prefork.config.schema import Config
from prefork.errors import ConfigError

MAX_FILE_BYTES: Final = 256 << 10
_EXAMPLE = "`app: module:attribute`"


@dataclass(frozen=True)
class Loaded:
    """A valid config, and where its values come from.

    ``origins`` has the place of each value that was set, by its path as in errors (``log.level``,
    ``workers``, or with pools ``pools.web.workers``); what is not there is a default. ``secrets`` are the
    paths of values that came from files.
    """

    config: Config
    origins: Mapping[str, Place]
    secrets: frozenset[str]

    @property
    def has_pools(self) -> bool:
        """Whether the config was written with ``pools``."""
        return any(path.startswith("pools.") for path in self.origins)


def load(
    files: Sequence[str], overrides: Sequence[Override] = (), environ: Mapping[str, str] = os.environ
) -> Loaded:
    """Return the config of these files, later ones winning, and of the overrides, which win over all files.

    Raises ConfigError with a line for each mistake.
    """
    report = Report()
    trees = [_read_tree(file, report) for file in files]
    if None in trees:  # what the others lack may be in the file that cannot be read
        raise ConfigError("\n".join(report.lines()))
    trees += [override.tree(report) for override in overrides]
    merged = merge_all(tree for tree in trees if tree)
    if not (files or merged.entries or report.mistakes):
        raise ConfigError(
            f"app: missing: expected {_EXAMPLE} in a config file, or the application as argument"
        )
    config = assemble(Interpolation(environ, report).table(merged), tuple(files), environ, report)
    if report.mistakes:
        raise ConfigError("\n".join(report.lines()))
    secrets = frozenset(report.secrets)
    return Loaded(replace(config, secrets=secrets), report.origins, secrets)


def stated_control(files: Sequence[str], environ: Mapping[str, str] = os.environ) -> str | None:
    """Return what ``control`` is in files that may have mistakes elsewhere; None if one cannot be read at all."""
    report = Report()
    trees = [_read_tree(file, report) for file in files]
    if None in trees:
        return None
    merged = merge_all(tree for tree in trees if tree)
    return assemble(Interpolation(environ, report).table(merged), tuple(files), environ, report).control


def _read_tree(file: str, report: Report) -> Table | None:
    """Return a file's tree, or None after a mistake."""
    try:
        node = yaml.parse(_read_text(file), file, report)
        return _expect_table(node, file)
    except yaml.Unreadable as error:
        report.mistake(error.place, "", error.message)
        return None


def _expect_table(node: Node | None, file: str) -> Table:
    if isinstance(node, Table):
        return node
    if node is None:
        raise yaml.Unreadable(Place(file), f"expected at least {_EXAMPLE}, got an empty file")
    raise yaml.Unreadable(node.place, f"expected a mapping such as {_EXAMPLE}, got {describe(node)}")


def _read_text(file: str) -> str:
    """Return the text of a config file. Raises Unreadable."""
    place = Place(file)
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as opened:
            kind = os.fstat(fd).st_mode
            if stat.S_ISDIR(kind):
                raise yaml.Unreadable(place, "expected a config file, got a directory")
            if not stat.S_ISREG(kind):
                raise yaml.Unreadable(place, "expected a regular file, got a pipe, socket or device")
            data = opened.read(MAX_FILE_BYTES + 1)
    except IsADirectoryError:
        raise yaml.Unreadable(place, "expected a config file, got a directory") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise yaml.Unreadable(place, f"cannot read the config file: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise yaml.Unreadable(
            place, f"expected a config file of at most {MAX_FILE_BYTES >> 10}KiB, got a longer one"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise yaml.Unreadable(Place(file, line, 1), "expected UTF-8 text, got bytes that are not") from None
