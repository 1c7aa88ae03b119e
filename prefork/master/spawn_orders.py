"""Orders to the molds that wait for their turn: a channel holds only so many that are not read yet.

Runs in the master.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from prefork.channel import Channel
from prefork.master.plan import Worker
from prefork.master.worker_states import State
from prefork.records import Descriptor

UNANSWERED = 64
"""A ``SOCK_SEQPACKET`` pair holds more than 200 messages of this size at the smallest buffer in use."""


class SpawnOrders:
    """The workers that are wanted and that have not said hello, in order; each with its end of a channel."""

    def __init__(self, send: Callable[[Worker, Channel], None]) -> None:
        self._send = send
        self._waiting: deque[tuple[Worker, Channel]] = deque()
        self._sent: list[Worker] = []

    def add(self, worker: Worker, channel: Channel) -> None:
        """Have a worker forked when its turn has come; ``give`` must follow."""
        self._waiting.append((worker, channel))

    def record(self) -> dict[int, Descriptor]:
        """Return the ends of channels of those that still wait, by the worker's id."""
        return {worker.id: Descriptor(channel.fileno()) for worker, channel in self._waiting}

    def adopt(self, workers: Iterable[Worker], waiting: Mapping[int, int]) -> None:
        """Go on where an older version of this process had got to; ``give`` must follow."""
        for worker in workers:
            if worker.id in waiting:
                self.add(worker, Channel.from_fd(waiting[worker.id]))
            else:
                self._sent.append(worker)

    def give(self) -> None:
        """Send what may be sent. To be called after whatever happens to workers."""
        self._sent = [worker for worker in self._sent if worker.state in (State.SPAWNING, State.DOOMED)]
        while self._waiting and (self._has_room() or self._waiting[0][0].state is not State.SPAWNING):
            worker, channel = self._waiting.popleft()
            if worker.state is State.SPAWNING:
                self._sent.append(worker)
                self._send(worker, channel)
            channel.close()  # if nobody holds it now, reading the other end finds that out

    def _has_room(self) -> bool:
        return len(self._sent) < UNANSWERED
