"""Signals of the master: noted, and those that stop it first."""

import subprocess
import sys
import textwrap


def test_signals_that_came_together() -> None:
    script = """
        import os, signal
        from prefork.master.signals import SignalPipe
        pipe = SignalPipe()
        numbers = [signal.SIGHUP, signal.SIGTTIN, signal.SIGTERM, signal.SIGTTIN, signal.SIGWINCH]
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        first, *others = [signal.Signals(number).name for number in pipe.received()]
        print(first, sorted(others), pipe.received())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "SIGTERM ['SIGHUP', 'SIGTTIN', 'SIGWINCH'] []"
