"""One line for each death, which says whether anybody needs to look."""

import pytest

from prefork.figures import Counts
from prefork.master.obituary import write_obituary, write_obituary_of_unborn
from prefork.master.plan import Worker
from prefork.process import Exit


class Lines:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, event: str, message: str, **fields: object) -> None:
        self.lines.append(("info", message))

    def error(self, event: str, message: str, **fields: object) -> None:
        self.lines.append(("error", message))


def a_worker(reason: str | None, served: bool) -> Worker:
    worker = Worker(1, 0, 1, 0, 0.0, 120.0)
    worker.reason = reason
    worker.ready_at = 1.0 if served else None
    return worker


CLEAN, KILLED, ABORTED = Exit(9, 0, None), Exit(9, None, "SIGKILL"), Exit(9, None, "SIGABRT")


@pytest.mark.parametrize(
    ("reason", "served", "exit", "oom", "expected", "words"),
    [
        (None, True, KILLED, False, False, "not expected"),
        (None, True, KILLED, True, False, "killed by the kernel for lack of memory (OOM)"),
        (None, True, CLEAN, False, False, "not expected"),
        ("retired", True, CLEAN, False, True, "expected: replaced"),
        ("retired", True, KILLED, False, False, "not expected: replaced"),
        ("retired", False, KILLED, False, True, "expected: replaced"),
        ("drain-timeout", True, ABORTED, False, False, "it did not finish within timeouts.graceful"),
        ("stop", False, KILLED, False, True, "expected: the server stops"),
        ("quick-stop", True, ABORTED, False, True, "expected: the server stops at once"),
        ("request-deadline", True, ABORTED, False, False, "a request passed timeouts.request"),
    ],
)
def test_a_death_is_told(
    reason: str | None, served: bool, exit: Exit, oom: bool, expected: bool, words: str
) -> None:
    log = Lines()
    write_obituary(log, a_worker(reason, served), exit, Counts(requests=3), 2.0, oom, "")  # type: ignore[arg-type]
    ((level, message),) = log.lines
    assert level == ("info" if expected else "error")
    assert ("not expected" in message) is not expected
    assert message.startswith(f"gone: {exit} after 2.0 s and 3 requests, ")
    assert message.endswith(words)


@pytest.mark.parametrize(("reason", "count"), [("spawn-failed", 1), ("stop", 0)])
def test_who_said_no_hello_is_told_unless_nobody_waited_for_it(reason: str, count: int) -> None:
    log = Lines()
    write_obituary_of_unborn(log, a_worker(reason, served=False))  # type: ignore[arg-type]
    assert len(log.lines) == count
