"""What workers report to the master, and what their pool makes of it.

Runs in the master.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from prefork.channel import ChannelClosed, Message
from prefork.log import Log
from prefork.master import obituary
from prefork.master.crew import Crew
from prefork.master.failure import told
from prefork.master.plan import Action, Worker
from prefork.master.slots import SlotTable
from prefork.master.worker_link import WorkerLink
from prefork.master.worker_states import State


class Pool(Protocol):
    """What reports need of the pool of the workers."""

    table: SlotTable
    is_closing: bool

    def carry_out(self, actions: Sequence[Action], failure: str = "") -> None:
        """Do what the slot table asks for."""

    def log_of(self, worker: Worker) -> Log:
        """Return a log that speaks of a worker."""


class Reports:
    """Read from the channels of the workers of one pool."""

    def __init__(self, pool: Pool, crew: Crew) -> None:
        self._pool = pool
        self._crew = crew

    def read(self, worker: Worker) -> None:
        """Take what a worker has said, or that its end is closed."""
        link = self._crew.link_to(worker)
        if link is None:
            return
        try:
            for message in link.messages():
                self._said(worker, link, message)
        except ChannelClosed:
            self._pool.carry_out(
                self._pool.table.lose(worker, monotonic()), "it could not be forked, or died at once"
            )

    def read_hellos(self) -> None:
        """Take hellos that wait."""
        for worker in list(self._pool.table.workers.values()):
            if worker.pid is None:
                self.read(worker)

    def _said(self, worker: Worker, link: WorkerLink, message: Message) -> None:
        """Take a word of a worker, which may be broken by its application: what makes no sense is ignored."""
        now = monotonic()
        match message.kind:
            case "hello" if worker.pid is None and message.pid:
                self._crew.met(worker, message.pid)
                self._pool.carry_out(self._pool.table.hello(worker, message.pid, now))
            case "ready":
                if worker.state is State.BOOTING:
                    took_s = now - worker.spawned_at
                    self._pool.log_of(worker).info(
                        "worker-ready", f"ready after {took_s:.2f} s", took_s=round(took_s, 3)
                    )
                self._pool.carry_out(self._pool.table.ready(worker, now))
                if self._pool.is_closing:
                    link.send("closing")
            case "failed" if worker.state is State.BOOTING and not link.failure:
                link.failure = str(message.fields.get("text")) or "it did not say why"
                worker.reason = worker.reason or "boot-failed"
                if not self._pool.table.is_on_trial(worker.generation):
                    why, traceback = told("it cannot get ready", link.failure)
                    self._pool.log_of(worker).error("worker-boot-failed", why, traceback=traceback)
            case "late":
                request, elapsed_s = message.fields.get("request"), message.fields.get("elapsed_s")
                self._pool.carry_out(self._pool.table.late(worker, f"{request} after {elapsed_s} s", now))
            case "leave" if not self._pool.table.is_stopping:
                reason = str(message.fields.get("reason"))
                self._pool.carry_out(
                    self._pool.table.leave(worker, reason if reason in obituary.OF_WORKERS else "asked", now)
                )
