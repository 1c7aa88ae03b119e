"""Each event that the code writes is in the table of events, with its level and its fields, and the other way round."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from prefork.log.events import EVENTS, FIELDS
from prefork.log.log import LEVELS

PACKAGE = Path(__file__).parents[2] / "prefork"
KINDS = {kind.name: kind for kind in EVENTS}
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LOGS = re.compile(r"(.*[._])?(log|logs)$|.*log_of\(.*\)$")
"""How the objects are called whose methods write events."""


def calls() -> Iterator[tuple[str, str, str, set[str]]]:
    """Yield (place, level, event, fields) of each call that names its event."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            event = node.args[0]
            if (
                node.func.attr in LEVELS
                and LOGS.match(ast.unparse(node.func.value))
                and isinstance(event, ast.Constant)
            ):
                fields = {keyword.arg for keyword in node.keywords if keyword.arg}
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node.func.attr, event.value, fields


def test_each_written_event_is_in_the_table() -> None:
    problems = []
    count = 0
    for place, level, event, fields in calls():
        count += 1
        kind = KINDS.get(event)
        if kind is None:
            problems.append(f"{place}: describe {event} in prefork/log/events.py")
        elif level not in kind.levels.split(", "):
            problems.append(f"{place}: {event} is not known at level {level}")
        elif unknown := fields - {*kind.fields, "pid"}:
            problems.append(f"{place}: {event} has fields that are not described: {unknown}")
    assert not problems
    assert count > 70  # the calls are found at all


def test_the_table_is_whole() -> None:
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "events.py")
    assert len(KINDS) == len(EVENTS)
    for kind in EVENTS:
        assert NAME.fullmatch(kind.name)
        assert f'"{kind.name}"' in source, f"{kind.name} is not written any more"
        assert set(kind.levels.split(", ")) <= LEVELS.keys()
        assert set(kind.fields) <= FIELDS.keys()
    assert set(FIELDS) == {field for kind in EVENTS for field in kind.fields}
