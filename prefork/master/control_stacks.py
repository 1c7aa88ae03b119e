"""What each worker is doing right now, line by line: the stacks of its threads, and the requests that it runs.

Runs in the master, which asks by a signal and does not wait: a worker that hangs in C code answers, one that is
stopped or hangs in the kernel does not, and is said to.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic_ns
from typing import Any

from prefork.master.control_request import Request, Wait
from prefork.master.plan import Worker
from prefork.master.pool import Pool
from prefork.master.worker_states import State
from prefork.process import state_letter
from prefork.stacks import is_in_application

_ASKED = frozenset({State.READY, State.DRAINING})
"""States in which a worker surely knows the signal: it would end any other process."""

_NO_ANSWER = {
    "T": "it is stopped (SIGSTOP, or a debugger)",
    "D": "it hangs in the kernel",
    "Z": "it is dead",
}


class StacksWait(Wait):
    """Until every worker has told its stack, or had its time for that."""

    def __init__(self, request: Request, workers: Sequence[tuple[Pool, Worker]]) -> None:
        super().__init__(request)
        self._workers = workers
        self._stacks: dict[int, str | None] = {}
        for at, (pool, worker) in enumerate(workers):
            if worker.state in _ASKED:
                pool.ask_stack(worker, lambda stack, at=at: self._tell(at, stack))  # type: ignore[misc]
            else:
                self._stacks[at] = None

    def _tell(self, at: int, stack: str) -> None:
        self._stacks[at] = stack

    def look(self) -> None:
        for at, (pool, worker) in enumerate(self._workers):
            if at not in self._stacks and worker.id not in pool.table.workers:
                self._stacks[at] = ""  # it died, and nobody answers for it
        if len(self._stacks) == len(self._workers):
            found = [self._of(at, *each) for at, each in enumerate(self._workers)]
            self.request.end("the stacks", workers=found)

    def _of(self, at: int, pool: Pool, worker: Worker) -> dict[str, Any]:
        stack, now_ns = self._stacks[at], monotonic_ns()
        lives = worker.id in pool.table.workers
        running = pool.generations[worker.generation].scoreboard.cells[worker.cell].running() if lives else []
        note = None
        if stack is None:
            note = f"it is {worker.state.value}, and not asked"
        elif not stack:
            note = _NO_ANSWER.get(state_letter(worker.pid or 0), "it did not answer in time")
        elif not running and not is_in_application(stack):
            stack, note = None, "it waits for requests"
        return {
            "slot": f"{pool.name}.{worker.slot}",
            "pid": worker.pid,
            "generation": worker.generation,
            "state": worker.state.value if not running else "busy",
            "running": [
                {
                    "request": request.line,
                    "thread": request.thread,
                    "elapsed_s": round((now_ns - request.start_ns) / 1e9, 3),
                }
                for request in running
            ],
            "stack": stack or None,
            "note": note,
        }
