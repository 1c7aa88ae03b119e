"""Stacks of threads that still run."""

from __future__ import annotations

import os
import signal
import sysconfig
import threading
from pathlib import Path

import pytest

import prefork
from prefork import process
from prefork.last_words import TELL, LastWords, write_to
from prefork.stacks import is_application, marked, stack_of_dump, stack_of_thread

HERE = __file__
OURS = Path(prefork.__file__).parent / "worker"


def test_a_stack_ends_with_the_innermost_call_and_shows_the_source() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def inner() -> None:
        begun.set()
        go_on.wait()  # here it is

    thread = threading.Thread(target=inner)
    thread.start()
    begun.wait()
    try:
        lines = stack_of_thread(thread.ident or 0).splitlines()
    finally:
        go_on.set()
        thread.join()
    ours = next(n for n, line in enumerate(lines) if line.startswith(f'> File "{HERE}"'))
    assert lines[ours + 1] == "      go_on.wait()  # here it is"
    assert all(line.startswith("  ") for line in lines[ours + 1 :])
    assert stack_of_thread(1) == ""


@pytest.mark.parametrize(
    ("file", "is_theirs"),
    [
        ("/srv/shop/views.py", True),
        ("/srv/venv/lib/python3.11/site-packages/flask/app.py", False),
        ("/usr/lib/python3/dist-packages/yaml.py", False),
        (os.__file__, False),
        (str(OURS / "gateway.py"), False),
        ("<frozen importlib._bootstrap>", False),
        ("", False),
    ],
)
def test_what_is_the_applications_own(file: str, is_theirs: bool) -> None:
    assert is_application(file) is is_theirs
    assert marked(file, "x") == ("> x" if is_theirs else "  x")


def test_a_process_that_lives_writes_its_stack_as_often_as_it_is_asked() -> None:
    words = LastWords()
    told, tell = os.pipe()

    def live() -> int:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        write_to(words.fd)
        os.write(tell, b"x")
        while True:
            signal.pause()

    pid = process.spawn(live)
    child = process.Process(pid)
    try:
        os.read(told, 1)
        for _ in range(2):
            words.forget()
            child.signal(TELL)
            while "in live" not in stack_of_dump(words.raw()):
                assert not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    finally:
        child.signal(signal.SIGKILL)
        assert process.reap(pid).signal == "SIGKILL"
        child.close()
        words.close()
        os.close(told)
        os.close(tell)


THREAD, CURRENT = "Thread 0x7f01 (most recent call first):", "Current thread 0x7f02 (most recent call first):"
GATEWAY = f'  File "{OURS / "gateway.py"}", line 1 in respond'
STEWARD = f'  File "{OURS / "steward.py"}", line 1 in _run'
SHOP = '  File "/srv/shop.py", line 3 in view'
JSON = f'  File "{Path(sysconfig.get_path("stdlib")) / "json" / "__init__.py"}", line 9 in dumps'


def test_of_a_dump_the_threads_that_run_requests_are_told_innermost_last() -> None:
    one = [THREAD, STEWARD, "", CURRENT, JSON, SHOP, GATEWAY]
    assert stack_of_dump("\n".join(one)).splitlines() == [
        "> " + SHOP.strip(),
        "  " + JSON.strip(),
    ]
    two = [CURRENT, STEWARD, THREAD, SHOP, GATEWAY, THREAD, JSON, SHOP]
    assert stack_of_dump("\n".join(two)).splitlines() == [
        "Thread 1:",
        "> " + SHOP.strip(),
        "Thread 2:",
        "> " + SHOP.strip(),
        "  " + JSON.strip(),
    ]
    assert stack_of_dump("") == ""
