"""Processes and what they inherit: forks, exits, descriptors, signals."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from prefork.heritage import Heritage, InheritedListener
from prefork.process import Exit, Process, signal_name, spawn

pytestmark = pytest.mark.measured


def run(script: str) -> str:
    """Run a script in an interpreter of its own, for it changes what is the process's."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("return 7", "exit status 7"),
        ("sys.exit(4)", "exit status 4"),
        ("raise ValueError", "exit status 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
    ],
)
def test_a_spawned_child_never_returns(end: str, expected: str) -> None:
    script = f"""
        import os, signal, sys
        from prefork.process import ended_children, reap, spawn
        def main():
            {end}
        spawn(main)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        for pid in ended_children():
            print(reap(pid))
    """
    assert run(script) == expected


def test_an_orphan_becomes_the_subreapers() -> None:
    script = """
        import os
        from prefork.process import become_subreaper, ended_children, reap, spawn, spawn_orphan
        become_subreaper()
        master = os.getpid()
        def worker():
            while os.getppid() != master:
                pass
            return 5
        def mold():
            spawn_orphan(worker)
            return 0
        spawn(mold)
        found = []
        while len(found) < 2:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            found += [reap(pid).exit_status for pid in ended_children()]
        print(sorted(found))
    """
    assert run(script) == "[0, 5]"


def test_fork_failure_of_the_intermediate_is_told() -> None:
    script = """
        import os
        from prefork import process
        real, calls = os.fork, []
        def fork():
            calls.append(1)
            if len(calls) == 2:
                raise BlockingIOError(11, "no more processes")
            return real()
        os.fork = fork
        try:
            process.spawn_orphan(lambda: 0)
        except OSError as error:
            print(error.errno)
    """
    assert run(script) == "11"


def test_an_application_that_reaps_the_intermediate_is_no_failure() -> None:
    told = run(
        """
        import os, signal
        from prefork.process import spawn_orphan

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        reader, writer = os.pipe()
        spawn_orphan(lambda: os.write(writer, b"born") and 0)
        print(os.read(reader, 10))
        """
    )
    assert told == "b'born'"


def test_signals_reach_a_process_by_pidfd_and_without() -> None:
    for forbidden in (False, True):
        pid = spawn(lambda: signal.pause() or 0)
        process = Process(pid)
        if forbidden:
            process.close()
        process.signal(signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert str(Exit.of(pid, status)) == "killed by SIGKILL"
        process.signal(signal.SIGKILL)  # it is gone: no error
        process.close()


def test_the_title_takes_names_that_are_no_text() -> None:
    """Such as that of a config file, which the master shows."""
    code = """
        from pathlib import Path
        from prefork.process import set_title

        set_title("prefork: master shop (b\\udcff.yaml)")
        print(Path("/proc/self/cmdline").read_text().rstrip(chr(0)))
    """
    assert run(code) == "prefork: master shop (b?.yaml)"


def test_signal_names() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(signal.SIGRTMIN + 3) == "SIGRTMIN+3"


def test_close_all_but_closes_all_but() -> None:
    script = """
        import os
        from prefork.heritage import close_all_but
        fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
        far = os.dup2(fds[0], 900)
        keep = {0, 1, 2, fds[4], fds[11], far}
        close_all_but(keep)
        print(keep == {fd for fd in range(2000) if os.path.exists(f"/proc/self/fd/{fd}")})
    """
    assert run(script) == "True"


def test_heritage_survives_an_exec() -> None:
    heritage = Heritage(
        server="shop",
        pool="web",
        generation=3,
        lifeline=5,
        doorbell=6,
        relay=(15, 16),
        channel=7,
        last_words=13,
        listeners=(InheritedListener(8, "127.0.0.1:80"), InheritedListener(9, "unix:/run/x")),
        logs=(10, 11),
    )
    assert Heritage.from_json(heritage.to_json()) == heritage
    assert heritage.descriptors() == {0, 1, 2, 5, 6, 15, 16, 7, 13, 8, 9, 10, 11}
    assert heritage.for_worker(12, 14).descriptors() == {0, 1, 2, 5, 6, 15, 16, 12, 14, 8, 9, 10, 11}


def test_fork_of_an_application_with_threads_does_not_warn() -> None:
    script = """
        import threading, warnings
        warnings.simplefilter("error")
        from prefork.process import spawn_orphan
        stop = threading.Event()
        threading.Thread(target=stop.wait, daemon=True).start()
        spawn_orphan(lambda: 0)
        print("forked")
    """
    assert run(script) == "forked"
