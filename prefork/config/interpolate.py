"""``${VAR}``, ``${VAR:-default}``, ``${VAR:?message}``, ``${file:/path}`` and ``$$`` in a tree's scalars."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from prefork.config.nodes import Entry, Items, Node, Report, Scalar, Table, join
from prefork.suggest import did_you_mean

_REFERENCE = re.compile(r"\$(?:\$|\{([^${}]*)(\}?))")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::([-?])(.*))?", re.DOTALL)
_FORMS = "${VAR}, ${VAR:-default}, ${VAR:?message} or ${file:/path}"
_MAX_FILE_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Interpolation:
    """Replaces references by the values of an environment and of files; mistakes go to the report."""

    environ: Mapping[str, str]
    report: Report

    def apply(self, node: Node, path: str = "") -> Node:
        """Return the tree with every scalar's references replaced."""
        match node:
            case Table():
                return self.table(node, path)
            case Items():
                return Items(
                    node.place, tuple(self.apply(n, f"{path}[{i}]") for i, n in enumerate(node.nodes))
                )
            case Scalar() if isinstance(node.value, str) and "$" in node.text and not node.loose:
                return self._scalar(node, path)
        return node

    def table(self, table: Table, path: str = "") -> Table:
        """Return the mapping with every scalar's references replaced."""
        entries = {k: Entry(e.place, self.apply(e.node, join(path, k))) for k, e in table.entries.items()}
        return Table(table.place, entries)

    def _scalar(self, scalar: Scalar, path: str) -> Scalar:
        secret = False

        def value_of(match: re.Match[str]) -> str:
            nonlocal secret
            body = match[1]
            if body is None:
                return "$"
            if not match[2]:
                rest = scalar.text[match.start() :]
                raise ValueError(f'expected {_FORMS}, got "{rest}"; $$ stands for a dollar sign')
            if body.startswith("file:"):
                secret = True
                return _read(body.removeprefix("file:"))
            return self._variable(body)

        try:
            text = _REFERENCE.sub(value_of, scalar.text)
        except ValueError as error:
            self.report.mistake(scalar.place, path, str(error))
            return replace(scalar, reported=True)
        if text == scalar.text:
            return scalar
        return Scalar.of_text(scalar.place, text, secret=secret)

    def _variable(self, body: str) -> str:
        match = _VARIABLE.fullmatch(body)
        if match is None:
            raise ValueError(f'expected {_FORMS}, got "${{{body}}}"')
        name, operator, rest = match.groups()
        value = self.environ.get(name)
        if operator == "-":
            return value or rest
        if operator == "?" and not value:
            raise ValueError(f"${{{name}}}: {rest or 'must be set and not empty'}")
        if value is None:
            hint = did_you_mean(name, [v for v in self.environ if v.isupper()])
            raise ValueError(
                f"${{{name}}}: not set in the environment, and no default as in ${{{name}:-…}}{hint}"
            )
        return value


def _read(path: str) -> str:
    """Return a file's text without the line end at its end. Raises ValueError that says why not."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ValueError(f"${{file:{path}}}: not a regular file")
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"${{file:{path}}}: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError(f"${{file:{path}}}: longer than {_MAX_FILE_BYTES >> 10}KiB")
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"${{file:{path}}}: not UTF-8 text") from None
