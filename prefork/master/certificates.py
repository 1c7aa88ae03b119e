"""From the config's ``tls`` to the contexts of a generation.

Runs in the master, with its rights: the files are read before a child drops privileges, and at each reload.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefork.config import Pool, Tls
from prefork.contexts import Contexts
from prefork.errors import ConfigError
from prefork.master.listeners import Listener, key_of

if TYPE_CHECKING:
    from ssl import SSLContext


def contexts_of(pool: Pool, listeners: Sequence[Listener]) -> Contexts:
    """Return the contexts of a pool's open listeners; equal entries share one.

    Raises ``ConfigError``: the files may have changed since the config was checked.
    """
    contexts = Contexts()
    made: dict[Tls, SSLContext] = {}
    wanted = {key_of(listen): listen.tls for listen in pool.listen if isinstance(listen.tls, Tls)}
    for listener in listeners:
        tls = wanted.get(listener.key)
        if tls is None:
            continue
        from prefork.tls import TlsMistake, make_context  # without TLS, nobody needs the module ssl

        try:
            made[tls] = made.get(tls) or make_context(tls)
        except TlsMistake as mistake:
            raise ConfigError(f"{pool.name}: {mistake}") from None
        contexts.by_listener[listener.fileno()] = made[tls]
    return contexts
