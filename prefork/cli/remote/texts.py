"""Answers of a server as text: what has changed, what would, and stacks. Pure. Runs in a command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from prefork.cli.figures import duration, printable

_WIDEST_VALUE = 60


def changes_text(changes: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each key that differs."""
    return [_change(change) for change in changes]


def _change(change: dict[str, Any]) -> str:
    old, new = _value(change["old"]), _value(change["new"])
    note = " (a secret, which differs)" if old == new else ""
    late = ", applies on restart only" if change["applies"] == "restart" else ""
    return f"  {change['key']}: {old} -> {new}{note}{late}"


def _value(value: Any) -> str:
    if value is None:
        return "(unset)"
    text = printable(value) if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= _WIDEST_VALUE else f"{text[: _WIDEST_VALUE - 1]}…"


def diff_text(answer: dict[str, Any], installed: str) -> str:
    """Return what a reload would change; ``installed`` is the version that runs this command."""
    changes = answer["changes"]
    lines = ["a reload would change:" if changes else "the config has not changed", *changes_text(changes)]
    for fate in ("replaced", "new", "removed"):
        names = [name for name, its in answer["pools"].items() if its == fate]
        if names:
            suffix = "; code is read anew" if fate == "replaced" else ""
            lines.append(f"pools {fate}: {', '.join(names)}{suffix}")
    if answer["needs_restart"]:
        lines.append(f"needs a restart: {', '.join(answer['needs_restart'])}")
    if answer["version"] != installed:
        lines.append(f"needs prefork upgrade: {answer['version']} runs, {installed} is installed")
    return "\n".join(lines)


def stacks_text(workers: Sequence[dict[str, Any]]) -> str:
    """Return the stacks of workers, as ``prefork stacks`` shows them."""
    return "\n".join(line for worker in workers for line in _worker(worker))


def _worker(worker: dict[str, Any]) -> Iterator[str]:
    yield f"{worker['slot']} gen {worker['generation']} pid {worker['pid']}: {worker['note'] or worker['state']}"
    for request in worker["running"]:
        thread = f" in thread {request['thread']}" if len(worker["running"]) > 1 else ""
        yield f"  runs {printable(request['request'])} for {duration(request['elapsed_s'])}{thread}"
    for line in (worker["stack"] or "").splitlines():
        yield f"    {printable(line)}"
