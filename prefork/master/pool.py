"""A pool as it runs: carries out what the slot table decides, and tells the table what happens.

Runs in the master. It owns the channels and processes of its workers, and its generations with their molds and
shared memory. What concerns all pools (reload, stop, listeners) is the supervisor's, told through ``Watcher``.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic

from prefork import records
from prefork.cell import Cell
from prefork.figures import Counts
from prefork.log import Log
from prefork.master import obituary
from prefork.master.crew import Crew
from prefork.master.errands import Errands
from prefork.master.failure import in_one_line, not_ready, told
from prefork.master.floor import Floor
from prefork.master.generation import Generation
from prefork.master.living_stacks import ask_stack
from prefork.master.molds import Means, Molds
from prefork.master.plan import Action, AllReady, BackedOff, BootFailed, GateReached, React, Spawn, Worker
from prefork.master.pool_hooks import PoolHooks
from prefork.master.pool_terms import PoolRecord, Watcher
from prefork.master.reports import Reports
from prefork.master.scaling_rule import Bounds
from prefork.master.slots import SlotTable
from prefork.master.totals import Totals
from prefork.master.worker_states import Reaction, State
from prefork.process import Exit, cpu_time_ns
from prefork.records import Descriptor
from prefork.status import last_counts_of

FORGET_S = 0.1
"""So long after the end of a generation, or of the whole pool, nothing speaks to it any more."""


class Pool:
    """One pool, through all its generations."""

    def __init__(self, first: Generation, means: Means, watcher: Watcher) -> None:
        self.name = first.config.name
        self.current = first
        self.relay = first.relay
        self.table = SlotTable(first.plan(), random.random)
        self.totals = Totals()
        self._means = means
        self._log = means.log
        self._watcher = watcher
        self._molds = Molds(means, self)
        self.generations = self._molds.generations
        """Those that still have processes."""
        self._crew = Crew(means.loop, self._order, self._read)
        self._reports = Reports(self, self._crew)
        self._empty_listeners = False
        """Workers that drain now first take what waits in listeners that are about to close."""
        self.is_closing = False
        """Have its workers been told that the pool will stop?"""
        self._floor = Floor()
        errands = Errands(self.name, means.loop, means.log, self._order_hook, self._farewell)
        self._hooks = PoolHooks(lambda: self.current.config, errands)

    @classmethod
    def adopt(
        cls, record: PoolRecord, generations: Mapping[int, Generation], means: Means, watcher: Watcher
    ) -> Pool:
        """Take over a pool that an older version of this process has run, with all its processes."""
        pool = cls(generations[record.current], means, watcher)
        records.restore(pool.table, record.table)
        spawned = len(pool.table.workers) if record.spawned is None else record.spawned
        pool.totals = Totals(record.totals, spawned, record.deaths, record.cpu_ns)
        pool.is_closing, pool._floor = record.closing, record.floor
        pool._hooks.adopt(record.hooks)
        for mold in record.molds:
            pool._molds.adopt(generations[mold.generation], mold)
        pool._crew.adopt(record.crew, pool.table.workers)
        return pool

    def record(self) -> PoolRecord:
        """Return all that the next version of the master must know."""
        number = self.current.number
        return PoolRecord(
            # Of a pool that leaves the current generation may be gone, and an older one not.
            number if number in self.generations else max(self.generations),
            (Descriptor(self.relay.way_in.fileno()), Descriptor(self.relay.way_out.fileno())),
            self.totals.counts,
            self.is_closing,
            self._floor,
            records.plain(self.table),
            tuple(generation.record() for generation in self.generations.values()),
            self._molds.record(),
            self._crew.record(),
            self._hooks.record(),
            self.totals.spawned,
            dict(self.totals.deaths),
            dict(self.totals.cpu_ns),
        )

    # What the supervisor asks for

    def add(self, generation: Generation) -> None:
        """Start the mold of a generation; when it is ready its workers follow."""
        self._molds.start(generation)

    def open_gate(self) -> None:
        """Every pool has its first batch: old workers may go."""
        self.carry_out(self.table.open_gate(monotonic()))

    def commit(self, number: int, *, empty_listeners: bool) -> None:
        """Let a generation take over for good.

        With ``empty_listeners`` the last workers of the one before take what waits in listeners that close.
        """
        self.current = self.generations[number]
        self._empty_listeners = empty_listeners
        self.carry_out(self.table.commit(monotonic()))
        self._empty_listeners = False
        self._molds.dismiss_all_but(number)
        self._forget_generations()

    def roll_back(self, failed: int) -> None:
        """Give a generation up; the one before goes on."""
        self._molds.dismiss(failed)
        if self.table.plan.generation == failed:
            self._floor.restore()
        self.carry_out(self.table.roll_back(monotonic()))
        self._forget_generations()

    def ask_for(self, wanted: int) -> int:
        """Want so many workers until the next reload; return how many are wanted now, which may be others.

        A pool that scales itself has no fewer from now on.
        """
        wanted = self._floor.ask(self.current.config, wanted, self.current.most_workers)
        self.scale_to(wanted)
        return wanted

    def scale_to(self, wanted: int) -> None:
        """Want so many workers."""
        self.carry_out(self.table.scale(wanted, monotonic()))

    def recycle(self, worker: Worker, reason: str) -> None:
        """Replace a worker: its successor is ready before it drains."""
        self.carry_out(self.table.leave(worker, reason, monotonic()))

    @property
    def bounds(self) -> Bounds | None:
        """How many workers there may be; None if the number is fixed."""
        return self._floor.bounds(self.current.config)

    @property
    def mold_pid(self) -> int | None:
        """The process from which workers are forked now."""
        return self._molds.pid_of(self.current.number)

    def serving(self) -> Iterator[tuple[Worker, Cell]]:
        """Yield each worker that serves and is to stay, with its cell."""
        cells = self.current.scoreboard.cells
        for worker in self.table.serving():
            if worker.generation == self.current.number:
                yield worker, cells[worker.cell]

    @property
    def can_boot(self) -> bool:
        """Workers can be forked and get ready, as far as is known."""
        return self._molds.can_supply(self.current.number) and not self.table.keeps_failing

    def announce_ready(self) -> None:
        """The server serves with this pool."""
        self._hooks.announce_ready([listener.address for listener in self.current.listeners])

    def announce_closing(self) -> None:
        """Have every worker, also one that gets ready later, tell its clients that the pool will stop."""
        self.is_closing = True
        self.broadcast("closing")

    def stop(self, deadline: float, reason: str) -> None:
        """Retire all workers until ``deadline``; they first take the connections that wait in the listeners.

        The hooks that are left to run have until then, too, and the workers a little less.
        """
        self.announce_closing()
        keeps_mold = self._hooks.needs_mold and self._molds.is_ready(self.current.number)
        self._molds.dismiss_all_but(self.current.number if keeps_mold else None)
        deadline = self._hooks.stop(deadline, reason, has_mold=keeps_mold)
        self._empty_listeners = True
        self.carry_out(self.table.stop(deadline, reason, monotonic()))

    def broadcast(self, kind: str, fds: Sequence[int] = (), **fields: object) -> None:
        """Send an order to every worker that can be reached."""
        self._crew.broadcast(kind, fds, **fields)

    def broadcast_to_molds(self, kind: str, fds: Sequence[int] = ()) -> None:
        self._molds.broadcast(kind, fds)

    def expire(self, now: float) -> None:
        """Act on the deadlines that have passed."""
        self.carry_out(self.table.expire(now))

    def overdue(self, worker: Worker, detail: str) -> None:
        """End a worker, one of whose requests passed its deadline; ``detail`` says which."""
        self.carry_out(self.table.overdue(worker, detail, monotonic()))

    def ask_stack(self, worker: Worker, then: Callable[[str], None]) -> None:
        """Have ``then`` told the stack of what a worker runs, "" if that cannot be known."""
        if (link := self._crew.link_to(worker)) is not None:
            ask_stack(self._means.loop, link, then)

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
        return not self.table.workers and self._hooks.errands.is_idle and self._molds.are_gone

    # What the molds tell

    def mold_ready(self, generation: int) -> None:
        now = monotonic()
        if generation > self.table.plan.generation:
            self._floor.forget()
            plan = self.generations[generation].plan(self.table.wanted)
            self.carry_out(self.table.begin(plan, now))
        else:
            self.carry_out(self.table.mold_ready(generation, now))

    def mold_gone(self, generation: int) -> None:
        self.table.mold_gone(generation)
        if self.table.is_stopping and generation == self.current.number:
            self._hooks.errands.give_up("there is no mold to run it")

    def mold_died(self, generation: int, pid: int, facts: Mapping[str, object], stack: str) -> None:
        self._means.chronicle.note_death(
            facts, stack, slot=None, pid=pid, pool=self.name, generation=generation
        )

    def mold_failed(self, generation: int, reason: str, details: str) -> None:
        if generation > self.table.plan.generation or self.table.is_on_trial(generation):
            self._watcher.generation_failed(self, generation, reason, details)
            return
        if self.table.is_stopping:
            self._molds.dismiss(generation)
            return
        message, traceback = told(
            f"{self.name} gen {generation}: its workers serve on, but {reason}", details
        )
        self._log.error("mold-failed", message, pool=self.name, generation=generation, traceback=traceback)
        self._molds.retry(generation)

    # Deaths

    def child_died(self, pid: int, reap: Callable[[int], Exit]) -> bool:
        """Reap a child if it is a mold or a worker of this pool; return whether it is."""
        if self._molds.child_died(pid, reap):
            self._forget_generations()
            return True
        if self._hooks.errands.child_died(pid, reap):
            return True
        worker = self._crew.worker_of(pid)
        if worker is None:
            return False
        self._read(worker)  # what it said last
        cpu_ns = cpu_time_ns(pid)  # until it is reaped
        self._bury(worker, reap(pid), cpu_ns)
        return True

    def read_hellos(self) -> None:
        """Take hellos that wait: only they tell the pid of a worker that died at once."""
        self._reports.read_hellos()
        self._hooks.errands.read_hello()

    def _bury(self, worker: Worker, exit: Exit, cpu_ns: int) -> None:
        now = monotonic()
        link = self._crew.let_go(worker)
        cell = self.generations[worker.generation].scoreboard.cells[worker.cell]
        counts = last_counts_of(cell, now)
        oom = self._means.is_oom_kill(exit) and worker.state is not State.KILLED
        stack = link.last_words.read()
        link.close()
        facts = obituary.write_obituary(
            self.log_of(worker), worker, exit, counts, now - worker.spawned_at, oom, stack
        )
        self._means.bulletin.touch()
        why = facts["detail"] or (
            in_one_line(*told("it cannot get ready", link.failure)) if link.failure else None
        )
        self._count_death(worker, {**facts, "detail": why}, stack or link.failure, counts, cpu_ns)
        cell.clear()
        self._hooks.worker_gone(f"{self.name}.{worker.slot}", worker.generation, exit, facts)
        if exit.exit_status != 0 or worker.reason not in obituary.EXPECTED:
            self.relay.nudge()  # it may have been woken for a connection that it did not take
        self.carry_out(self.table.gone(worker, now), link.failure or str(exit))
        self._forget_generations()

    def _count_death(
        self, worker: Worker, facts: dict[str, object], stack: str, counts: Counts, cpu_ns: int
    ) -> None:
        slot = f"{self.name}.{worker.slot}"
        self.totals = self.totals.burying(str(facts["reason"]), counts, slot, cpu_ns)
        self._means.chronicle.note_death(
            facts, stack, slot=slot, pid=worker.pid, pool=self.name, generation=worker.generation
        )

    # Carrying out

    def carry_out(self, actions: Sequence[Action], failure: str = "") -> None:
        """Do what the slot table asks for; ``failure`` is what is known of a failed boot."""
        for action in actions:
            match action:
                case Spawn(worker):
                    self.totals = self.totals.spawning()
                    self._spawn(worker)
                case React(worker, reaction):
                    if reaction is Reaction.FORGET:
                        facts = obituary.facts_of_unborn(worker, monotonic() - worker.spawned_at)
                        self._count_death(worker, facts, "", Counts(), 0)
                    self._crew.react(
                        worker, reaction, self.log_of(worker), empty_listeners=self._empty_listeners
                    )
                case GateReached(generation):
                    self._watcher.gate_reached(self, generation)
                case AllReady(generation):
                    self._watcher.all_ready(self, generation)
                case BootFailed(worker):
                    reason = not_ready(worker, self.generations[worker.generation].config)
                    self._watcher.generation_failed(self, worker.generation, reason, failure)
                case BackedOff():
                    obituary.tell_back_off(self._log, self.name, action)
        self._crew.give_orders()
        self._farewell()

    def _read(self, worker: Worker) -> None:
        self._reports.read(worker)

    def _spawn(self, worker: Worker) -> None:
        try:
            self._crew.spawn(worker)
        except OSError as error:
            why = f"cannot make a channel: {error.strerror}"
            self.log_of(worker).error("spawn-failed", why)
            # Later, as any other failed spawn: the table is in the middle of a decision.
            self._means.loop.call_later(0, lambda: self.carry_out(self.table.lose(worker, monotonic()), why))

    def _order(self, worker: Worker, fds: Sequence[int]) -> None:
        if not self._molds.send(worker.generation, "spawn", fds, slot=worker.slot, cell=worker.cell):
            self._log.debug(
                "spawn-not-sent", f"the mold did not take the order for {self.name}.{worker.slot}"
            )

    # Hooks

    def _order_hook(self, kind: str, fds: Sequence[int], /, **fields: object) -> bool:
        number = self.current.number
        return self._molds.is_ready(number) and self._molds.send(number, kind, fds, **fields)

    def _farewell(self) -> None:
        """At the end of a stop: run the last hook; after that no mold is needed any more."""
        if self.table.is_stopping and not self.table.workers and self._hooks.last():
            self._molds.dismiss_all_but(None)

    def _forget_generations(self) -> None:
        """Give up the shared memory and private keys of generations whose last process is gone, at last the relay."""
        if self._molds.forget_generations({worker.generation for worker in self.table.workers.values()}):
            # Shared memory keeps a descriptor until the last that knows it is gone, be it in a ring of objects such as
            # a pool is.
            self._means.loop.call_later(FORGET_S, gc.collect)
        if not self.generations:
            self.relay.close()
