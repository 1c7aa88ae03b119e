"""Fork, exec, wait and kill, and the title of a process: the one home of these system calls.

Master, mold and worker use it; nothing else in prefork calls ``os.fork``, ``os.wait*`` or ``os.kill``.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, NoReturn

from setproctitle import setproctitle

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CPUCLOCK_SCHED = 2


def set_title(title: str) -> None:
    """Set what ``ps`` shows of this process."""
    setproctitle(title.encode(errors="replace").decode())  # names of files may be no text


def become_subreaper() -> None:
    """Make orphaned descendants children of this process; see ``PR_SET_CHILD_SUBREAPER`` in prctl(2).

    Not inherited by fork, kept across exec. Raises ``OSError``.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def signal_when_parent_ends(number: int) -> None:
    """Be sent a signal when the parent ends, and when the next parent does; 0 for none.

    See ``PR_SET_PDEATHSIG`` in prctl(2). Not inherited by fork, cleared by a change of user. Raises ``OSError``.
    """
    _prctl(_PR_SET_PDEATHSIG, number)


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def cpu_time_ns(pid: int) -> int:
    """Return the CPU time that all threads of a process have taken; 0 if it is gone.

    The number of its clock is what clock_getcpuclockid(3) returns, which Python has not.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0


def state_letter(pid: int) -> str:
    """Return the state of a process as ps(1) shows it, such as ``S`` or ``T``; "" if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return chr(file.read().rpartition(b")")[2].split()[0][0])
    except (OSError, IndexError):
        return ""


def pid_exists(pid: int) -> bool:
    """Tell whether there is a process with this pid, whoever runs it; also one that is not reaped yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def fork() -> int:
    """Fork; return 0 in the child.

    CPython 3.12 and later warn when threads exist. An application that was preloaded although it has some
    was told so already, and a warning that the application made an error must not stop the fork.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def spawn(main: Callable[[], int]) -> int:
    """Fork a child that runs ``main`` and exits with what it returns; return the child's pid.

    The child never returns into the caller's frames: whatever happens it ends with ``os._exit``. It starts
    with all signals blocked, so that none reaches the handlers that it inherits; it must unblock them.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = fork()
        if pid == 0:
            run_and_exit(main)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def run_and_exit(main: Callable[[], int]) -> NoReturn:
    """Run ``main`` and leave the process with what it returns, without the parent's exit handlers."""
    status = 1
    try:
        status = main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # whatever happens, the parent's frames must not go on in the child
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def spawn_program(command: list[str], keep: Iterable[int], output: int) -> int:
    """Start a program in a child, which prints to ``output``; return the child's pid.

    It has the descriptors ``keep``, whether they are closed on exec or not, and default signal actions. It ends
    with its parent.
    """
    parent = os.getpid()

    def become() -> int:
        signal_when_parent_ends(signal.SIGKILL)
        if os.getppid() != parent:
            return 1
        signal.set_wakeup_fd(-1)
        for fd in keep:
            os.set_inheritable(fd, True)
        for fd in (1, 2):
            os.dup2(output, fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        become_program(command)

    return spawn(become)


def become_program(command: list[str]) -> NoReturn:
    """Replace the program of this process, which keeps its pid, children and signal mask. Raises ``OSError``."""
    os.execv(command[0], command)


def spawn_orphan(main: Callable[[], int]) -> None:
    """Fork a child of the nearest subreaper: through an intermediate that does nothing but fork and exit.

    Waits for the intermediate. Raises ``OSError`` if either fork fails and the application has not reaped it.
    """
    intermediate = fork()
    if intermediate == 0:
        status = 0
        try:
            if fork() == 0:
                run_and_exit(main)
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    try:
        _, status = os.waitpid(intermediate, 0)
    except ChildProcessError:
        return  # the application ignores SIGCHLD, or reaps all: whether it went well is then not known
    code = os.waitstatus_to_exitcode(status)
    if code > 0:
        raise OSError(code, os.strerror(code))


class Exit(NamedTuple):
    """How a process ended: one of ``exit_status`` and ``signal`` is None."""

    pid: int
    exit_status: int | None
    signal: str | None

    @classmethod
    def of(cls, pid: int, wait_status: int) -> Exit:
        code = os.waitstatus_to_exitcode(wait_status)
        return cls(pid, code, None) if code >= 0 else cls(pid, None, signal_name(-code))

    def __str__(self) -> str:
        return f"killed by {self.signal}" if self.signal else f"exit status {self.exit_status}"


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` for 9; for a realtime signal ``SIGRTMIN+n``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else f"signal {number}"


def ended_children() -> Iterator[int]:
    """Yield the pid of each child that has ended and is not yet reaped.

    The caller reaps it with ``reap`` before it asks for the next: until then the pid cannot be used again.
    """
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        yield found.si_pid


def reap(pid: int) -> Exit:
    """Take the exit status of a child that has ended."""
    _, status = os.waitpid(pid, 0)
    return Exit.of(pid, status)


class Ending:
    """Watches a process that need not be a child; made while it lives, so that no later owner of the pid is meant."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except OSError:  # it is gone already, or a sandbox forbids the call
            self._pidfd = None

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended, and close; return whether it has."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            ended = bool(poll.poll(timeout_s * 1000))
            os.close(self._pidfd)
            return ended
        deadline = time.monotonic() + timeout_s
        while state_letter(self._pid) not in ("", "Z"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


class Process:
    """A child that may be signalled: by pidfd where possible, so that no later owner of the pid is hit."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except OSError:
            # Sandboxes forbid the call. We are the only reaper of our children, so the pid stays theirs.
            self._pidfd = None

    def signal(self, number: int) -> None:
        """Send a signal; a process that has ended already is no error."""
        try:
            if self._pidfd is None:
                os.kill(self.pid, number)
            else:
                signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
