"""Go on as the master of a server that another version of prefork has run: put its parts together again.

Called by ``prefork.first_stage``, in the master after the exec, or in a child of it that rehearses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from prefork.cli import arguments
from prefork.cli.main import report_failures
from prefork.cli.run import LIVES, import_for_tls
from prefork.errors import ExitStatus
from prefork.log import Logs
from prefork.master import state
from prefork.master.state import Belongings
from prefork.master.supervisor import Supervisor
from prefork.process import set_title


def rehearse(fd: int, words: Sequence[str]) -> int:
    """Do all that ``adopt`` does, and read the config, too; return the exit status.

    It changes nothing that it shares with the master. A failure is printed.
    """

    def attempt() -> int:
        set_title("prefork: check of an upgrade")
        _supervisor(fd, words)
        arguments.read(words, os.environ).load()
        return ExitStatus.OK

    return report_failures(attempt)


def adopt(fd: int, words: Sequence[str], failure: str) -> Callable[[], int]:
    """Take over; return what serves until stopped. ``failure`` is why another version could not."""
    supervisor, belongings = _supervisor(fd, words)

    def serve() -> int:
        with belongings.put_away():
            return supervisor.resume(failure)

    return lambda: report_failures(serve)


def _supervisor(fd: int, words: Sequence[str]) -> tuple[Supervisor, Belongings]:
    record = state.read(fd)
    invocation = arguments.read(words, os.environ)
    import_for_tls(record.config)
    logs = Logs(record.started_with.log, record.started_with.statsd, files=record.log_files)
    return Supervisor.adopt(record, invocation.load, LIVES, logs), record.belongings
