"""Run a command to a running server: progress on stderr, the outcome on stdout, the truth in the exit status."""

from __future__ import annotations

import json
import sys
import time

from prefork import __version__
from prefork.cli.figures import printable
from prefork.cli.remote.asking import LOOKING, Asked
from prefork.cli.remote.connection import Answer
from prefork.cli.remote.server import RemoteServer
from prefork.cli.remote.status_text import status_text
from prefork.cli.remote.texts import changes_text, diff_text, stacks_text
from prefork.cli.top.live import top
from prefork.cli.top.screen import CLEAR
from prefork.errors import ExitStatus, PreforkError

WATCH_S = 1.0


def run(asked: Asked) -> int:
    """Return the exit status; what went wrong before there was an answer is raised as ``PreforkError``."""
    if asked.command == "top":
        return top(_find(asked, time.monotonic() + asked.timeout_s))
    if asked.watches:
        return _watch(asked)
    return _run_once(asked)


def _watch(asked: Asked) -> int:
    """Show the status each second, with --json one line of it, until Ctrl-C or an error."""
    server = _find(asked, time.monotonic() + asked.timeout_s)
    clear = CLEAR if sys.stdout.isatty() else ""
    try:
        while True:
            status = server.status()
            text = json.dumps(status) if asked.json else f"{clear}{status_text(status, time.time())}"
            print(text, flush=True)
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        return ExitStatus.OK


def _run_once(asked: Asked) -> int:
    try:
        answer = _ask(asked)
    except PreforkError as error:
        if asked.json:
            print(json.dumps({"status": int(error.status), "message": str(error)}))
        raise
    status = ExitStatus(answer.get("status", ExitStatus.INTERNAL))
    if asked.json:
        shown = answer.get("result") or {key: v for key, v in answer.items() if key not in ("v", "type")}
        print(json.dumps(shown, indent=2))
    elif status is ExitStatus.OK:
        print(_text(asked.command, answer))
    if status is not ExitStatus.OK:
        _complain(asked.command, answer, status)
    return status


def _find(asked: Asked, deadline: float) -> RemoteServer:
    changes = asked.command not in LOOKING
    return RemoteServer.find(asked.files, asked.control, deadline, changes=changes)


def _ask(asked: Asked) -> Answer:
    deadline = time.monotonic() + asked.timeout_s
    on_progress = _silent if asked.json else _show_progress
    server = _find(asked, deadline)
    if asked.command == "upgrade":
        return server.upgrade(deadline, on_progress, wait=asked.waits)
    if asked.command == "stop" and asked.waits:
        return server.stop(deadline, on_progress)
    return server.ask(asked.command, deadline, on_progress, wait=asked.waits, **asked.arguments)


def _silent(progress: Answer) -> None:
    pass


def _show_progress(progress: Answer) -> None:
    print(printable(str(progress.get("message"))), file=sys.stderr, flush=True)


def _text(command: str, answer: Answer) -> str:
    match command:
        case "status":
            return status_text(answer["result"], time.time())
        case "stacks":
            return stacks_text(answer["workers"])
        case "diff":
            return diff_text(answer, __version__)
    lines = [str(answer.get("message")), *changes_text(answer.get("changes", ()))]
    lines += [f"note: {note}" for note in answer.get("notes", ())]
    return "\n".join(lines)


def _complain(command: str, answer: Answer, status: ExitStatus) -> None:
    """Tell of a failure; the mistakes of a config begin with their place, so that editors can jump there."""
    message, error = str(answer.get("message")), str(answer.get("error") or "")
    if command in ("reload", "upgrade", "diff") and status is ExitStatus.USAGE and message.endswith(error):
        before = message.removesuffix(error).rstrip(": ")
        message = "\n".join(filter(None, (error, before and f"prefork: {before}")))
    else:
        message = f"prefork: {message}"
    print(message, file=sys.stderr)
    if answer.get("traceback"):
        print(answer["traceback"], file=sys.stderr)
