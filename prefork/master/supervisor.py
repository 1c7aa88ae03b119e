"""The supervisor: the master's one loop, which turns signals, deaths and deadlines into what pools do.

Runs in the master, which imports no application code, has no threads, never waits for anyone, and sleeps until
the nearest deadline.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from time import monotonic, sleep

from prefork import __version__
from prefork.config import Config, Listen, Loaded
from prefork.config import Pool as PoolConfig
from prefork.errors import ExitStatus
from prefork.log import Logs
from prefork.master.activation import take_activation
from prefork.master.estate import Estate, ServerState
from prefork.master.failure import told
from prefork.master.listeners import Listener, open_all, open_at_start
from prefork.master.loop import Loop
from prefork.master.notify import take_notifier
from prefork.master.nursery import MoldMain, Nursery
from prefork.master.pidfile import remove_pidfile, write_pidfile
from prefork.master.pool import Pool
from prefork.master.reloads import Reloads
from prefork.master.request_watch import RequestWatch
from prefork.master.signals import SignalPipe
from prefork.master.upkeep import Upkeep
from prefork.process import become_subreaper, ended_children, reap, set_title, signal_name
from prefork.quiesce import HANDSHAKES_S

QUICK_STOP_S = 2.0
"""How long workers may take in a quick stop to end what they run."""


class Supervisor:
    """The master. ``read_config`` reads the config again for a reload and raises ``ConfigError``."""

    def __init__(
        self, loaded: Loaded, read_config: Callable[[], Loaded], mold_main: MoldMain, logs: Logs
    ) -> None:
        self._logs = logs
        self._log = logs.log
        self._status = ExitStatus.OK
        self._estate = Estate(loaded.config, generation=1)
        self._stop_deadline: float | None = None
        self._notifier = take_notifier()
        self._activation = take_activation()
        self._loop = Loop(self.internal_error)
        self._requests = RequestWatch(self._log)
        self._upkeep = Upkeep(self._log)
        self._booting: set[str] = set()
        self._reloads = Reloads(self._estate, read_config, self, self._loop, self._log, self._notifier)
        self._nursery = Nursery(loaded.config.name, self._loop, logs, self._log, self._requests, mold_main)

    # The life of the master

    def run(self) -> ExitStatus:
        """Serve until stopped; return the exit status. Raises ``PreforkError`` if it cannot start."""
        config = self._estate.config
        if os.getpid() != 1:
            become_subreaper()
        signals = SignalPipe()  # before what may take time or leave something behind
        set_title(f"prefork: master {config.name} ({', '.join(config.files) or 'command line'})")
        self._announce(config)
        pidfile = config.pidfile
        if pidfile:
            write_pidfile(pidfile)
        try:
            listens = [listen for pool in config.pools for listen in pool.listen]
            self._estate.listeners = open_at_start(listens, self._activation, self._log)
            self._loop.watch(signals.fileno(), lambda: self._on_signals(signals.received()))
            self._loop.watch(self._requests.doorbell, self._rung)
            self._boot()
            while not self._is_over():
                self._turn()
        finally:
            for listener in [*self._estate.listeners, *self._estate.closing]:
                listener.close(unlink=True)
            if pidfile:
                remove_pidfile(pidfile)
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
        if self._notifier.watchdog_interval_s:
            self._feed_watchdog(self._notifier.watchdog_interval_s)

    def _turn(self) -> None:
        instants = [pool.table.next_deadline() for pool in self._pools()]
        instants += [self._requests.next_look, self._upkeep.next_look]
        lost_s = self._loop.run_once(min((i for i in instants if i is not None), default=None))
        if lost_s:
            self._log.warning(
                "suspended",
                f"the master did not run for {lost_s:.1f} s; all deadlines move by that",
                lost_s=round(lost_s, 3),
            )
            self._requests.excuse(lost_s)
            for pool in self._pools():
                pool.table.postpone(lost_s)
        try:
            self._act_on_deadlines(monotonic())
        except Exception:
            self.internal_error()
            sleep(1.0)  # it may come again at once, and must not become a busy loop

    def _act_on_deadlines(self, now: float) -> None:
        for pool in self._pools():
            deadline = pool.table.next_deadline()
            if deadline is not None and deadline <= now:
                pool.expire(now)
        if self._requests.next_look is not None and self._requests.next_look <= now:
            self._requests.look(self._pools())
            if not self._requests.is_asleep:
                self._upkeep.wake(now)
        if self._upkeep.next_look is not None and self._upkeep.next_look <= now:
            self._upkeep.look(self._pools(), now, busy=not self._requests.is_asleep)

    def _rung(self) -> None:
        self._requests.rung()
        self._upkeep.wake(monotonic())

    def _is_over(self) -> bool:
        self._estate.leaving = [pool for pool in self._estate.leaving if not pool.is_gone]
        return self._estate.state is ServerState.STOPPING and all(pool.is_gone for pool in self._pools())

    def _pools(self) -> list[Pool]:
        return [*self._estate.pools.values(), *self._reloads.coming_pools, *self._estate.leaving]

    def _feed_watchdog(self, interval_s: float) -> None:
        self._notifier.watchdog()
        self._loop.call_later(interval_s, lambda: self._feed_watchdog(interval_s))

    def internal_error(self) -> None:
        """Report a mistake of our own; the master goes on, for everyone's connections depend on it."""
        self._log.error(
            "internal-error", "a mistake in prefork, please report it", traceback=traceback.format_exc()
        )

    # Signals

    def _on_signals(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            match number:
                case signal.SIGCHLD:
                    self._reap()
                case signal.SIGTERM | signal.SIGQUIT:
                    self.stop(signal_name(number))
                case signal.SIGINT:
                    self.quick_stop()
                case signal.SIGHUP:
                    self._reloads.request()
                case signal.SIGUSR1:
                    self.reopen_logs()
                case signal.SIGTTIN | signal.SIGTTOU:
                    self.scale_by(1 if number == signal.SIGTTIN else -1)
                case signal.SIGUSR2:
                    self._log.warning("upgrade-unknown", "SIGUSR2: this version cannot upgrade in place")

    def _reap(self) -> None:
        for pid in ended_children():
            if any(pool.child_died(pid, reap) for pool in self._pools()):
                continue
            for pool in self._pools():  # it may have died before its hello was read
                pool.read_hellos()
            if not any(pool.child_died(pid, reap) for pool in self._pools()):
                self._log.debug("orphan-reaped", f"reaped pid {pid}, an orphan of the application", pid=pid)
                reap(pid)

    def scale_by(self, difference: int) -> None:
        """Want one worker more or fewer in the first pool."""
        if self._estate.state is ServerState.STOPPING:
            return
        pool = next(iter(self._estate.pools.values()))
        wanted = pool.scale_by(difference)
        self._upkeep.wake(monotonic())
        self._log.info("scaled", f"{pool.name}: {wanted} workers wanted", pool=pool.name, workers=wanted)

    def reopen_logs(self) -> None:
        """Open the log files again, here and in every child."""
        fds, failures = self._logs.reopen()
        if fds:
            for pool in self._pools():
                pool.broadcast("reopen", fds)
                pool.broadcast_to_molds("reopen", fds)
        for failure in failures:
            self._log.error("log-reopen-failed", failure)
        self._log.info("logs-reopened", f"reopened {len(fds) - len(failures)} log files")

    # Generations

    def add_generation(
        self, config: PoolConfig, generation: int, listeners: Sequence[Listener], pool: Pool | None
    ) -> Pool:
        """Start a generation of ``pool``, or of a new pool if it is None. Raises ``PreforkError``."""
        return self._nursery.add_generation(config, generation, listeners, pool, self)

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
            self._end(QUICK_STOP_S, "not-started")

    def _serve(self) -> None:
        self._estate.state = ServerState.SERVING
        where = ", ".join(listener.address for listener in self._estate.listeners)
        self._log.info("serving", f"serving on {where}", generation=self._estate.generation)
        self._notifier.ready(f"serving on {where}")
        self._announce_ready()
        self._reloads.do_waiting()

    def _announce_ready(self) -> None:
        for pool in self._estate.pools.values():
            pool.announce_ready()

    # What a reload needs

    def open_listeners(self, listens: Sequence[Listen], siblings: Sequence[Listen]) -> list[Listener]:
        """Open listeners; ``siblings`` are all of the config. Raises ``ListenError``; then none stays open."""
        return open_all(listens, self._activation, siblings, self._log)

    def retire_pool(self, pool: Pool, reason: str) -> None:
        """Have all workers of a pool take what waits in its listeners, drain and go."""
        self._estate.leaving.append(pool)
        pool.stop(monotonic() + pool.current.config.timeouts.graceful, reason)
        self._loop.call_later(HANDSHAKES_S, lambda: pool.broadcast("close-listeners"))

    def quiesce(self, listeners: Sequence[Listener]) -> None:
        """Make the kernel refuse new connections."""
        for problem in filter(None, (listener.quiesce() for listener in listeners)):
            self._log.warning("quiesce-failed", problem)

    def empty_and_close(self, listeners: Sequence[Listener]) -> None:
        """Close listeners once the workers that still hold them have taken what waits there."""

        def close() -> None:
            self._broadcast("close-listeners")
            for listener in listeners:
                listener.free_address()
                listener.close(unlink=True)
                self._estate.closing.remove(listener)
            self._reloads.do_waiting()

        self._estate.closing += listeners
        self._loop.call_later(HANDSHAKES_S, close)

    # Stop

    def stop(self, why: str) -> None:
        """Stop gracefully: serve on for the shutdown delay, then drain, all within ``timeouts.graceful``."""
        if self._estate.state is ServerState.STOPPING:
            return
        timeouts = [pool.timeouts for pool in self._estate.config.pools]
        delay_s = (
            0.0 if self._estate.state is ServerState.BOOTING else max(t.shutdown_delay for t in timeouts)
        )
        rest_s = max(t.graceful for t in timeouts) - delay_s
        delay = f", serving on for {delay_s:g} s" if delay_s else ""
        self._begin_stop(f"{why}: stopping gracefully{delay}")
        self._loop.call_later(delay_s, lambda: self._end(rest_s, "stop"))

    def quick_stop(self) -> None:
        """Stop now: end what runs, but wait for nothing else."""
        self._begin_stop("SIGINT: stopping at once")
        self._end(QUICK_STOP_S, "quick-stop")
        self._broadcast("quit")

    def _begin_stop(self, message: str) -> None:
        self._log.info("stopping", message)
        if self._estate.state is ServerState.STOPPING:
            return
        self._notifier.stopping(message)
        self._reloads.abandon()
        self._estate.state = ServerState.STOPPING
        for pool in self._pools():
            pool.announce_closing()

    def _end(self, within_s: float, reason: str) -> None:
        """Have every worker take what waits in the listeners, drain, and leave within some seconds from now."""
        self._estate.state = ServerState.STOPPING
        if self._stop_deadline is None:
            self.quiesce(self._estate.listeners)
            self._loop.call_later(HANDSHAKES_S, lambda: self._broadcast("close-listeners"))
        deadline = monotonic() + within_s
        self._stop_deadline = min(deadline, self._stop_deadline or deadline)
        for pool in self._pools():
            pool.stop(self._stop_deadline, reason)

    def _broadcast(self, kind: str) -> None:
        for pool in self._pools():
            pool.broadcast(kind)
