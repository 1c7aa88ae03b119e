"""A pool as it runs: carries out what the slot table decides, and tells the table what happens.

Runs in the master. It owns the channels and processes of its workers, and its generations with their molds and
shared memory. What concerns all pools (reload, stop, listeners) is the supervisor's, told through ``Watcher``.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from prefork.channel import Channel, ChannelClosed, Message
from prefork.log import Log
from prefork.master.cgroup import OomWatch
from prefork.master.failure import told
from prefork.master.generation import Generation
from prefork.master.loop import Loop
from prefork.master.mold_keeper import MoldKeeper
from prefork.master.obituary import EXPECTED, write_obituary, write_obituary_of_unborn
from prefork.master.plan import Action, AllReady, BackedOff, BootFailed, GateReached, React, Spawn, Worker
from prefork.master.slots import SlotTable
from prefork.master.spawn_orders import SpawnOrders
from prefork.master.worker_link import WorkerLink
from prefork.master.worker_states import Reaction, State
from prefork.process import Exit, Process
from prefork.scoreboard import Counts


class Watcher(Protocol):
    """What a pool tells the supervisor."""

    def gate_reached(self, pool: Pool, generation: int) -> None:
        """The first batch of a generation is ready."""

    def all_ready(self, pool: Pool, generation: int) -> None:
        """Every slot has a ready worker of the generation."""

    def generation_failed(self, pool: Pool, generation: int, reason: str, details: str) -> None:
        """A generation that has not taken over yet cannot; ``details`` may be a traceback."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a pool needs of the master to make children."""

    loop: Loop
    log: Log
    mold_main: Callable[[Generation, int, int, bool], int]
    """The life of a mold: its generation, the descriptors of its channel and last words, whether it preloads."""
    oom: OomWatch


class Pool:
    """One pool, through all its generations."""

    def __init__(self, first: Generation, means: Means, watcher: Watcher) -> None:
        self.name = first.config.name
        self.current = first
        self.relay = first.relay
        self.table = SlotTable(first.plan(), random.random)
        self.totals = Counts()
        """Counters of all workers that are gone."""
        self._means = means
        self._log = means.log
        self._watcher = watcher
        self.generations: dict[int, Generation] = {}
        self._molds: dict[int, MoldKeeper] = {}
        self._links: dict[int, WorkerLink] = {}
        self._by_pid: dict[int, Worker] = {}
        self._orders = SpawnOrders(self._order)
        self._empty_listeners = False
        """Workers that drain now first take what waits in listeners that are about to close."""
        self._closing = False

    # What the supervisor asks for

    def add(self, generation: Generation) -> None:
        """Start the mold of a generation; when it is ready its workers follow."""
        self.generations[generation.number] = generation
        self._molds[generation.number] = MoldKeeper(
            self.name,
            generation.number,
            self._means.loop,
            self._log,
            self,
            spawn=lambda channel, words, preload: self._means.mold_main(generation, channel, words, preload),
            preload=generation.config.preload is not False,
            boot_s=generation.config.timeouts.boot,
        )
        self._molds[generation.number].start()

    def open_gate(self) -> None:
        """Every pool has its first batch: old workers may go."""
        self._carry_out(self.table.open_gate(monotonic()))

    def commit(self, number: int, *, empty_listeners: bool) -> None:
        """Let a generation take over for good.

        With ``empty_listeners`` the last workers of the one before take what waits in listeners that close.
        """
        self.current = self.generations[number]
        self._empty_listeners = empty_listeners
        self._carry_out(self.table.commit(monotonic()))
        self._empty_listeners = False
        for other, mold in self._molds.items():
            if other != number:
                mold.dismiss()
        self._forget_generations()

    def roll_back(self, failed: int) -> None:
        """Give a generation up; the one before goes on."""
        self._molds[failed].dismiss()
        self._carry_out(self.table.roll_back(monotonic()))
        self._forget_generations()

    def scale_by(self, difference: int) -> int:
        """Want more or fewer workers until the next reload; return how many are wanted now."""
        wanted = max(1, min(self.table.wanted + difference, self.current.most_workers))
        self._carry_out(self.table.scale(wanted, monotonic()))
        return wanted

    def announce_closing(self) -> None:
        """Have every worker, also one that gets ready later, tell its clients that the pool will stop."""
        self._closing = True
        self.broadcast("closing")

    def stop(self, deadline: float, reason: str) -> None:
        """Retire all workers until ``deadline``; they first take the connections that wait in the listeners."""
        self.announce_closing()
        for mold in self._molds.values():
            mold.dismiss()
        self._empty_listeners = True
        self._carry_out(self.table.stop(deadline, reason, monotonic()))

    def broadcast(self, kind: str, fds: Sequence[int] = (), **fields: object) -> None:
        """Send an order to every worker that can be reached."""
        for link in self._links.values():
            link.send(kind, fds, **fields)

    def broadcast_to_molds(self, kind: str, fds: Sequence[int] = ()) -> None:
        for mold in self._molds.values():
            mold.send(kind, fds)

    def expire(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        self._carry_out(self.table.expire(now))

    def overdue(self, worker: Worker) -> None:
        """End a worker, one of whose requests passed its deadline."""
        self._carry_out(self.table.overdue(worker, monotonic()))

    def worker_of_cell(self, generation: int, cell: int) -> Worker | None:
        """Return the worker that owns a cell."""
        workers = self.table.workers.values()
        return next((w for w in workers if (w.generation, w.cell) == (generation, cell)), None)

    def log_of(self, worker: Worker) -> Log:
        """Return a log that speaks of a worker."""
        slot = f"{self.name}.{worker.slot}"
        known = "" if worker.pid is None else f" pid {worker.pid}"
        identity = f"{slot} gen {worker.generation}{known}"
        return self._log.bind(identity, slot=slot, generation=worker.generation, pid=worker.pid)

    @property
    def is_gone(self) -> bool:
        """No process of the pool lives."""
        return not self.table.workers and all(mold.is_gone for mold in self._molds.values())

    # What the molds tell

    def mold_ready(self, generation: int) -> None:
        now = monotonic()
        if generation > self.table.plan.generation:
            self._carry_out(self.table.begin(self.generations[generation].plan(), now))
        else:
            self._carry_out(self.table.mold_ready(generation, now))

    def mold_gone(self, generation: int) -> None:
        self.table.mold_gone(generation)

    def mold_failed(self, generation: int, reason: str, details: str) -> None:
        if generation > self.table.plan.generation or self.table.is_on_trial(generation):
            self._watcher.generation_failed(self, generation, reason, details)
            return
        message, traceback = told(
            f"{self.name} gen {generation}: its workers serve on, but {reason}", details
        )
        self._log.error("mold-failed", message, pool=self.name, generation=generation, traceback=traceback)
        self._molds[generation].retry()

    # Deaths

    def child_died(self, pid: int, reap: Callable[[int], Exit]) -> bool:
        """Reap a child if it is a mold or a worker of this pool; return whether it is."""
        for mold in self._molds.values():
            if mold.pid == pid:
                exit = reap(pid)
                mold.died(exit, oom_killed=self._is_oom_kill(exit))
                self._forget_generations()
                return True
        worker = self._by_pid.get(pid)
        if worker is None:
            return False
        self._read(worker)  # what it said last
        self._bury(worker, reap(pid))
        return True

    def read_hellos(self) -> None:
        """Take hellos that wait: only they tell the pid of a worker that died at once."""
        for worker in list(self.table.workers.values()):
            if worker.pid is None:
                self._read(worker)

    def _bury(self, worker: Worker, exit: Exit) -> None:
        now = monotonic()
        del self._by_pid[exit.pid]
        link = self._links.pop(worker.id)
        cell = self.generations[worker.generation].scoreboard.cells[worker.cell]
        counts = cell.counts()
        self.totals = self.totals.plus(counts)
        cell.clear()
        oom = self._is_oom_kill(exit) and worker.state is not State.KILLED
        stack = link.last_words.read()
        link.close()
        write_obituary(self.log_of(worker), worker, exit, counts, now - worker.spawned_at, oom, stack)
        if exit.exit_status != 0 or worker.reason not in EXPECTED:
            self.relay.nudge()  # it may have been woken for a connection that it did not take
        self._carry_out(self.table.gone(worker, now), link.failure or str(exit))
        self._forget_generations()

    def _is_oom_kill(self, exit: Exit) -> bool:
        return exit.signal == "SIGKILL" and self._means.oom.has_killed()

    # Carrying out

    def _carry_out(self, actions: Sequence[Action], failure: str = "") -> None:
        for action in actions:
            match action:
                case Spawn(worker):
                    self._spawn(worker)
                case React(worker, reaction):
                    self._react(worker, reaction)
                case GateReached(generation):
                    self._watcher.gate_reached(self, generation)
                case AllReady(generation):
                    self._watcher.all_ready(self, generation)
                case BootFailed(worker):
                    reason = f"worker {self.name}.{worker.slot} did not get ready"
                    if worker.reason == "boot-timeout":
                        boot_s = self.generations[worker.generation].config.timeouts.boot
                        reason += f" within timeouts.boot ({boot_s:g} s)"
                    self._watcher.generation_failed(self, worker.generation, reason, failure)
                case BackedOff(slot, delay_s, failures):
                    self._log.warning(
                        "slot-backs-off",
                        f"{self.name}.{slot}: failure {failures} in a row, next worker in {delay_s:.1f} s",
                        slot=f"{self.name}.{slot}",
                        failures=failures,
                        delay_s=round(delay_s, 3),
                    )
        self._orders.give()

    def _spawn(self, worker: Worker) -> None:
        try:
            link = WorkerLink(self._means.loop)
        except OSError as error:
            why = f"cannot make a channel: {error.strerror}"
            self.log_of(worker).error("spawn-failed", why)
            # Later, as any other failed spawn: the table is in the middle of a decision.
            self._means.loop.call_later(0, lambda: self._carry_out(self.table.lose(worker, monotonic()), why))
            return
        self._links[worker.id] = link
        link.watch(lambda: self._read(worker))
        self._orders.add(worker, link.theirs)

    def _order(self, worker: Worker, channel: Channel) -> None:
        mold, fds = self._molds[worker.generation], [channel.fileno(), self._links[worker.id].last_words.fd]
        if not mold.send("spawn", fds, slot=worker.slot, cell=worker.cell):
            self._log.debug(
                "spawn-not-sent", f"the mold did not take the order for {self.name}.{worker.slot}"
            )

    def _react(self, worker: Worker, reaction: Reaction) -> None:
        link = self._links.get(worker.id)
        match reaction:
            case Reaction.DRAIN if link is not None:
                link.send("drain", reason=worker.reason, empty_listeners=self._empty_listeners)
            case Reaction.ABORT | Reaction.KILL if link is not None and link.process is not None:
                number = signal.SIGABRT if reaction is Reaction.ABORT else signal.SIGKILL
                if worker.ready_at is not None or worker.reason not in EXPECTED:
                    self.log_of(worker).warning(
                        "worker-ended", f"{worker.reason}: sending {number.name}", reason=worker.reason
                    )
                link.process.signal(number)
            case Reaction.FORGET if link is not None:
                write_obituary_of_unborn(self.log_of(worker), worker)
                self._links.pop(worker.id).close()

    # What workers say

    def _read(self, worker: Worker) -> None:
        link = self._links.get(worker.id)
        if link is None:
            return
        try:
            for message in link.messages():
                self._said(worker, link, message)
        except ChannelClosed:
            self._carry_out(self.table.lose(worker, monotonic()), "it could not be forked, or died at once")

    def _said(self, worker: Worker, link: WorkerLink, message: Message) -> None:
        """Take a word of a worker, which may be broken by its application: what makes no sense is ignored."""
        now = monotonic()
        match message.kind:
            case "hello" if worker.pid is None and message.pid:
                link.process = Process(message.pid)
                self._by_pid[message.pid] = worker
                self._carry_out(self.table.hello(worker, message.pid, now))
            case "ready":
                if worker.state is State.BOOTING:
                    took_s = now - worker.spawned_at
                    self.log_of(worker).info(
                        "worker-ready", f"ready after {took_s:.2f} s", took_s=round(took_s, 3)
                    )
                self._carry_out(self.table.ready(worker, now))
                if self._closing:
                    link.send("closing")
            case "failed" if worker.state is State.BOOTING and not link.failure:
                link.failure = str(message.fields.get("text")) or "it did not say why"
                worker.reason = worker.reason or "boot-failed"
                if not self.table.is_on_trial(worker.generation):
                    why, traceback = told("it cannot get ready", link.failure)
                    self.log_of(worker).error("worker-boot-failed", why, traceback=traceback)
            case "leave" if not self.table.is_stopping:
                self._carry_out(self.table.leave(worker, "asked", now))

    # Ends

    def _forget_generations(self) -> None:
        """Give up the shared memory and private keys of generations whose last process is gone, at last the relay."""
        living = {worker.generation for worker in self.table.workers.values()}
        for number in [n for n, mold in self._molds.items() if mold.is_gone and n not in living]:
            del self._molds[number]
            generation = self.generations.pop(number)
            generation.scoreboard.close()
            generation.tls.forget()
        if not self.generations:
            self.relay.close()
