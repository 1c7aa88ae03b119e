"""A helper process: runs one hook that is about the server as a whole, and ends.

The master orders it and runs no application code; so it is forked from the mold, through an intermediate as a worker
is, with the application inherited, or loaded by itself with ``preload: false``. It holds no listener and takes no
connection, and the master ends it if it takes too long. Runs only in the helper.
"""

from __future__ import annotations

import gc
import os
import random
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefork import birth as births
from prefork import child
from prefork.channel import PROTOCOL, Channel, ChannelClosed
from prefork.config import Pool
from prefork.errors import ExitStatus, PreforkError
from prefork.heritage import Heritage
from prefork.hooks import OF_HELPERS
from prefork.log import Log, Logs
from prefork.log.capture import capture_output
from prefork.ties import Ties


@dataclass(frozen=True, slots=True)
class Birth:
    """All that a helper begins with; ``told`` are the fields of the hook's argument beyond pool and generation."""

    heritage: Heritage
    pool: Pool
    logs: Logs
    loaded: births.Loaded | None
    """None: the helper loads the application itself."""
    hook: str
    told: Mapping[str, Any]


def main(birth: Birth) -> int:
    """Run as a helper; return its exit status."""
    heritage, pool, hook = birth.heritage, birth.pool, birth.hook
    pid = os.getpid()
    child.begin(heritage, f"prefork: helper {pool.name} {hook} gen {heritage.generation}")
    logs = birth.logs.bind(
        f"{pool.name} {hook} gen {heritage.generation} pid {pid}",
        slow_s=pool.timeouts.slow,
        pool=pool.name,
        generation=heritage.generation,
        pid=pid,
    )
    capture_output(logs)
    for fd in heritage.ties() - {heritage.channel, heritage.lifeline}:
        os.close(fd)  # a hook that hangs, or what it starts, must not keep an address in use
    channel = Channel.from_fd(heritage.channel)
    Ties(lambda: (heritage.channel, heritage.lifeline))
    random.seed()
    gc.enable()
    try:
        channel.send("hello", protocol=PROTOCOL)
        with child.tied_to_master(heritage.lifeline):
            _run(birth, logs.log)
    except ChannelClosed:
        pass  # the master has given it up
    finally:
        logs.flush()
    return ExitStatus.OK


def _run(birth: Birth, log: Log) -> None:
    try:
        loaded = birth.loaded or births.load(birth.pool)
    except PreforkError as error:
        log.error("hook-failed", f"the hook {birth.hook} did not run: {error}")
        return
    except Exception:
        log.error("hook-failed", f"the hook {birth.hook} did not run", traceback=traceback.format_exc())
        return
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in birth.told.items()}
    fields = {"pool": birth.pool.name, "generation": birth.heritage.generation, **told}
    argument = OF_HELPERS[birth.hook](**fields)
    loaded.hooks.run(birth.hook, argument, log)
