"""Last words: what is kept of a dying child's stack."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import prefork
from prefork import process
from prefork.last_words import LIMIT_BYTES, TELL, LastWords, application_stack, write_to

OURS = Path(prefork.__file__).parent


def frame(file: str) -> str:
    return f'  File "{file}", line 1 in f'


IMPORT = [frame("<frozen importlib._bootstrap>"), frame("<frozen importlib._bootstrap_external>")]
GATEWAY, LOG, SCRIPT = (
    frame(f"{OURS}/worker/gateway.py"),
    frame(f"{OURS}/log/stream.py"),
    frame("/bin/prefork"),
)
SHOP, LIBRARY = frame("/srv/shop.py"), frame("/lib/flask/app.py")
CURRENT = "Current thread 0x00007f5a439bfb80 (most recent call first):"
OTHER = "Thread 0x00007f5a439bfb81 (most recent call first):"


@pytest.mark.parametrize(
    ("frames", "kept"),
    [
        ([SHOP, LIBRARY, GATEWAY, SCRIPT], [SHOP, LIBRARY]),
        ([SHOP, *IMPORT, GATEWAY, SCRIPT], [SHOP]),
        ([SHOP, *IMPORT, LIBRARY, *IMPORT, GATEWAY], [SHOP, *IMPORT, LIBRARY]),
        ([LOG, SHOP, GATEWAY, SCRIPT], [LOG, SHOP]),  # the application called prefork
        ([GATEWAY, LOG], [GATEWAY, LOG]),  # prefork itself is stuck
        ([*IMPORT, GATEWAY], [*IMPORT, GATEWAY]),
        ([SHOP, "  ..."], [SHOP, "  ..."]),
    ],
)
def test_of_each_thread_the_part_of_the_application_is_kept(frames: list[str], kept: list[str]) -> None:
    text = [
        "Fatal Python error: Aborted",
        "",
        OTHER,
        *frames,
        "",
        CURRENT,
        *frames,
        "",
        "Extension modules: x",
    ]
    headings = "Thread (most recent call first):", "Current thread (most recent call first):"
    assert application_stack("\n".join(text)).split("\n") == [headings[0], *kept, headings[1], *kept]


def test_who_says_nothing_leaves_nothing() -> None:
    words = LastWords()
    assert words.read() == ""
    words.close()


def test_the_words_of_a_process_that_aborts_are_read() -> None:
    words = LastWords()

    def abort() -> int:
        write_to(words.fd)
        os.abort()

    pid = process.spawn(abort)
    assert process.reap(pid).signal == "SIGABRT"
    assert f'File "{__file__}"' in words.read()
    words.close()


@pytest.mark.parametrize("dies", [True, False])
def test_what_it_was_asked_while_it_lived_is_not_told_when_it_is_dead(dies: bool) -> None:
    words = LastWords()

    def asked() -> None:
        signal.raise_signal(TELL)

    def live() -> int:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        write_to(words.fd)
        asked()
        if dies:
            os.abort()
        return 0

    process.reap(process.spawn(live))
    assert "in asked" in words.raw()
    assert "in asked" not in words.read()
    assert ("in live" in words.read()) is dies
    words.close()


def test_a_flood_is_cut() -> None:
    words = LastWords()
    os.write(words.fd, b"Fatal Python error: x\n" + b"x" * LIMIT_BYTES)
    assert 0 < len(words.read()) < LIMIT_BYTES
    os.ftruncate(words.fd, 0)
    os.lseek(words.fd, 0, os.SEEK_SET)
    os.write(words.fd, b"Fatal Python error: x\n" + b"\xff\n" * 10)
    assert words.read()
    words.close()
