"""The supervisor: the master's one loop, which turns signals, deaths and deadlines into what pools do.

Runs in the master, which imports no application code, has no threads, never waits for anyone, and sleeps until
the nearest deadline.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic

from prefork import __version__
from prefork.bulletin import Bulletin
from prefork.config import Config, Loaded
from prefork.config import Pool as PoolConfig
from prefork.errors import ExitStatus
from prefork.log import Logs
from prefork.master.account import Account
from prefork.master.admin_keeper import AdminKeeper
from prefork.master.admin_terms import Terms
from prefork.master.chronicle import Chronicle
from prefork.master.control import Control
from prefork.master.control_place import PlaceRecord
from prefork.master.doors import Doors
from prefork.master.estate import Estate, ServerState
from prefork.master.failure import told
from prefork.master.listeners import Listener
from prefork.master.loop import Loop
from prefork.master.news import News, Upgraded
from prefork.master.nursery import Lives, Nursery
from prefork.master.pidfile import remove_pidfile, write_pidfile
from prefork.master.pool import Pool
from prefork.master.reloads import Reloads
from prefork.master.request_watch import RequestWatch
from prefork.master.signals import SignalPipe, unblock_all
from prefork.master.state import Belongings, MasterRecord
from prefork.master.steering import Steering
from prefork.master.stop import QUICK_STOP_S, Stop
from prefork.master.succession import record_of, take_over
from prefork.master.turns import Turns
from prefork.master.upgrade import Upgrades
from prefork.master.upkeep import Upkeep
from prefork.process import become_subreaper, ended_children, reap, set_title, signal_name
from prefork.quiesce import HANDSHAKES_S
from prefork.records import Descriptor


class Supervisor:
    """The master. ``read_config`` reads the config again for a reload and raises ``ConfigError``."""

    def __init__(
        self,
        config: Config,
        belongings: Belongings,
        read_config: Callable[[], Loaded],
        lives: Lives,
        logs: Logs,
        before: MasterRecord | None = None,
    ) -> None:
        self._logs = logs
        self._log = logs.log
        self._status = ExitStatus.OK
        self._estate = Estate(config, generation=1)
        bulletin = Bulletin.adopt(belongings.bulletin)
        self._belongings = replace(belongings, bulletin=Descriptor(bulletin.fd))
        self._notifier = belongings.notifier
        self._loop = Loop(self.internal_error, before.written_at if before else None)
        self._requests = RequestWatch(self._log, belongings.doorbell)
        self._upkeep = Upkeep(self._log)
        self._turns = Turns(self._loop, self._requests, self._upkeep, self._log, self)
        self._booting: set[str] = set()
        self._news = News(self.internal_error)
        self._chronicle = chronicle = before.chronicle if before else Chronicle()
        self._news.listen(chronicle.hear)
        gauge = logs.statsd.tell_workers if logs.statsd else None
        self._account = Account(self._estate, chronicle, bulletin, self.pools, self._log, gauge)
        self._reloads = Reloads(
            self._estate, read_config, self, self._loop, self._log, self._notifier, self._news
        )
        self.doors = Doors(
            *(self._estate, belongings.activation, self._loop, self._log),
            *(self._broadcast, self._reloads.do_waiting),
        )
        self._stop = Stop(self._estate, self._loop, self._log, self._notifier, self, self._news)
        self._upgrades = Upgrades(belongings.command, self._loop, logs, self, self._news)
        self._nursery = Nursery(
            *(config.name, belongings.lifeline[0], self._loop, logs, self._requests, lives),
            *(config.metrics.buckets, bulletin, chronicle, belongings.metrics),
        )
        self.admin = AdminKeeper(self._loop, self._log, self._run_admin, self._reloads)
        self._steering = Steering(
            *(self.pools, self.admin, self._estate, self._reloads, self._upgrades, self._stop, self._upkeep),
            *(logs, read_config, self._account.status),
        )
        self._control = Control(self._loop, self._log, self._news, self._steering)
        self._signals: SignalPipe | None = None
        self._predecessor = ""
        self._control_record: PlaceRecord | None = None

    @classmethod
    def adopt(
        cls, record: MasterRecord, read_config: Callable[[], Loaded], lives: Lives, logs: Logs
    ) -> Supervisor:
        """Take over from an older version of this process; ``resume`` must follow.

        Nothing is changed that others see. Raises whatever is wrong with the state.
        """
        master = cls(record.started_with, record.belongings, read_config, lives, logs, record)
        take_over(record, master._estate, master._reloads, master._nursery, master, master.admin)
        master._predecessor, master._control_record = record.version, record.control
        return master

    def record(self) -> MasterRecord:
        """Return all that the next version of the master must know; only while it is idle."""
        self._estate.forget_gone(self._chronicle)
        parts = self._estate, self._reloads, self._belongings, self._logs, self._chronicle
        return record_of(*parts, self._control.record(), self.admin)

    # The life of the master

    def run(self) -> ExitStatus:
        """Serve until stopped; return the exit status. Raises ``PreforkError`` if it cannot start."""
        config = self._estate.config
        self._begin()
        self._announce(config)
        if config.pidfile:
            write_pidfile(config.pidfile)
        with self._put_away(config.pidfile):
            self._control.open(config.control, config.name)
            terms = Terms.of(config)
            self.doors.open_first()
            self.admin.start(terms)
            self._boot()
            self._work()
        return self._end_of_life()

    def resume(self, failure: str) -> ExitStatus:
        """Serve on until stopped, after ``adopt``; ``failure`` is why another version could not take over."""
        started_with = self._reloads.started_with
        with self._put_away(started_with.pidfile):
            self._begin()
            self._control.adopt(self._control_record, started_with.control, started_with.name)
            unblock_all()
            self._requests.take_over(
                generation.scoreboard for pool in self.pools() for generation in pool.generations.values()
            )
            self._upkeep.wake(monotonic())
            for pool in self._estate.leaving:
                pool.broadcast("close-listeners")
            if failure:
                message, traceback = told(f"the upgrade failed, prefork {__version__} serves on", failure)
                self._log.error("upgrade-failed", message, traceback=traceback)
                self._news.tell(Upgraded(__version__, self._predecessor, message, traceback))
            else:
                self._log.info(
                    "upgraded",
                    f"prefork {__version__} goes on in the place of {self._predecessor}; a reload follows",
                    version=__version__,
                    predecessor=self._predecessor,
                )
                self._news.tell(Upgraded(__version__, self._predecessor))
                self._reloads.request()
            self.admin.renew()
            self._reap()  # a death before the exec is no signal any more
            self._feed_watchdog()
            self._work()
        return self._end_of_life()

    def _begin(self) -> None:
        config = self._reloads.started_with
        if os.getpid() != 1:
            become_subreaper()
        self._signals = SignalPipe()  # before what may take time or leave something behind
        set_title(f"prefork: master {config.name} ({', '.join(config.files) or 'command line'})")
        self._loop.watch(self._signals.fileno(), self.take_signals)
        self._loop.watch(self._requests.doorbell, self._turns.rung)

    def _work(self) -> None:
        self._account.publish()
        while not self._is_over():
            self._turns.turn()

    @contextmanager
    def _put_away(self, pidfile: str | None) -> Iterator[None]:
        try:
            yield
        finally:
            self._control.close()
            self.admin.kill()
            self.doors.close_all()
            if pidfile:
                remove_pidfile(pidfile)

    def _end_of_life(self) -> ExitStatus:
        self._log.info("stopped", f"stopped with exit status {int(self._status)}", status=int(self._status))
        self._logs.flush()
        return self._status

    def _announce(self, config: Config) -> None:
        source = ", ".join(config.files) or "the command line"
        self._log.info(
            "starting",
            f"prefork {__version__} starts {config.name}, configured by {source}",
            version=__version__,
            config=list(config.files),
        )

    def _boot(self) -> None:
        for config in self._estate.config.pools:
            listeners = self._estate.listeners_of(config)
            self._estate.pools[config.name] = self.add_generation(config, 1, listeners, None)
        self._booting = set(self._estate.pools)
        self._feed_watchdog()

    def _is_over(self) -> bool:
        self._estate.forget_gone(self._chronicle)
        if self._estate.state is not ServerState.STOPPING or not all(pool.is_gone for pool in self.pools()):
            return False
        if not self.admin.has_ended:  # it goes last
            self.doors.quiesce(self._estate.listeners_of_admin())
            self.admin.end()
        return self.admin.is_gone

    def pools(self) -> list[Pool]:
        """Return all pools, coming and leaving ones too."""
        return [*self._estate.pools.values(), *self._reloads.coming_pools, *self._estate.leaving]

    def _feed_watchdog(self) -> None:
        interval_s = self._notifier.watchdog_interval_s
        if interval_s:
            self._notifier.watchdog()
            self._loop.call_later(interval_s, self._feed_watchdog)

    def internal_error(self) -> None:
        """Report a mistake of our own; the master goes on, for everyone's connections depend on it."""
        self._log.error(
            "internal-error", "a mistake in prefork, please report it", traceback=traceback.format_exc()
        )

    # Signals

    def take_signals(self) -> bool:
        """Act on the signals that have come; return whether they were more than deaths."""
        assert self._signals is not None
        numbers = self._signals.received()
        for number in numbers:
            match number:
                case signal.SIGCHLD:
                    self._reap()
                case signal.SIGTERM | signal.SIGQUIT:
                    self._stop.graceful(signal_name(number))
                case signal.SIGINT:
                    self._stop.quick()
                case signal.SIGHUP:
                    self._reloads.request()
                case signal.SIGUSR1:
                    self._steering.reopen_logs()
                case signal.SIGTTIN | signal.SIGTTOU:
                    self._steering.scale_by(1 if number == signal.SIGTTIN else -1)
                case signal.SIGUSR2:
                    self._steering.upgrade()
        return any(number != signal.SIGCHLD for number in numbers)

    def _reap(self) -> None:
        for pid in ended_children():
            if self._upgrades.child_died(pid, reap) or self.admin.child_died(pid, reap):
                continue
            if any(pool.child_died(pid, reap) for pool in self.pools()):
                continue
            for pool in self.pools():  # it may have died before its hello was read
                pool.read_hellos()
            if not any(pool.child_died(pid, reap) for pool in self.pools()):
                self._log.debug("orphan-reaped", f"reaped pid {pid}, an orphan of the application", pid=pid)
                reap(pid)

    def turn_ended(self) -> None:
        self._account.publish()
        self._control.turn_ended()

    # What upgrades need

    @property
    def is_idle(self) -> bool:
        """It serves, and no reload runs or waits."""
        return self._reloads.is_idle

    def became_idle(self) -> None:
        self._upgrades.proceed()

    # Generations

    def add_generation(
        self, config: PoolConfig, generation: int, listeners: Sequence[Listener], pool: Pool | None
    ) -> Pool:
        """Start a generation of ``pool``, or of a new pool if it is None. Raises ``PreforkError``."""
        pool = self._nursery.add_generation(config, generation, listeners, pool, self)
        self.admin.send_board(pool.name, generation, pool.generations[generation].scoreboard.fd)
        return pool

    def _run_admin(self, terms: Terms, channel: int, last_words: int) -> int:
        """Live as an admin process; runs in the child."""
        estate = self._estate
        boards = {key: board.fd for key, board in self._account.boards().items()}
        listeners = estate.listeners_of(terms.admin)
        return self._nursery.run_admin(terms, estate.generation, listeners, boards, channel, last_words)

    def gate_reached(self, pool: Pool, generation: int) -> None:
        self._reloads.gate_reached(pool, generation)

    def all_ready(self, pool: Pool, generation: int) -> None:
        self._upkeep.wake(monotonic())  # there may be more workers than have to be
        if self._reloads.all_ready(pool, generation):
            self._announce_ready()  # a reload may have added pools
        elif self._estate.state is ServerState.BOOTING:
            pool.commit(generation, empty_listeners=False)
            self._booting.discard(pool.name)
            if not self._booting:
                self._serve()

    def generation_failed(self, pool: Pool, generation: int, reason: str, details: str) -> None:
        what = f"{pool.name} gen {generation}: {reason}"
        if not self._reloads.failed(generation, what, details) and self._estate.state is ServerState.BOOTING:
            message, traceback = told(what, details)
            self._log.error("boot-failed", message, generation=generation, traceback=traceback)
            self._status = ExitStatus.APPLICATION
            self._stop.end(QUICK_STOP_S, "not-started")

    def _serve(self) -> None:
        self._estate.state = ServerState.SERVING
        where = ", ".join(listener.address for listener in self._estate.listeners_of_pools())
        self._log.info("serving", f"serving on {where}", generation=self._estate.generation)
        self._notifier.ready(f"serving on {where}")
        self._announce_ready()
        self._reloads.do_waiting()

    def _announce_ready(self) -> None:
        for pool in self._estate.pools.values():
            pool.announce_ready()

    # What a reload needs

    def retire_pool(self, pool: Pool, reason: str) -> None:
        """Have all workers of a pool take what waits in its listeners, drain and go."""
        self._estate.leaving.append(pool)
        pool.stop(monotonic() + pool.current.config.timeouts.graceful, reason)
        self._loop.call_later(HANDSHAKES_S, lambda: pool.broadcast("close-listeners"))

    def _broadcast(self, kind: str) -> None:
        for pool in self.pools():
            pool.broadcast(kind)
        self.admin.broadcast(kind)

    # Stop

    def abandon(self) -> None:
        """Give up what is under way: the server stops."""
        self._upgrades.abandon()
        self._reloads.abandon()
