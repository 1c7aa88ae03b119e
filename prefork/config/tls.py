"""TLS of listeners: what each inherits from its pool, and whether its files can be used.

A pool with ``tls`` speaks it on each listener that does not say ``tls: false``; a listener's own keys win.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import TypeVar

from prefork.config.listening import Admin, Listen, Tls
from prefork.config.nodes import Report, join
from prefork.config.rules import listeners
from prefork.config.schema import Pool

Owner = TypeVar("Owner", Pool, Admin)


def with_tls(owner: Owner, path: str, report: Report) -> Owner:
    """Return the owner with the ``tls`` of each listener complete: all keys, or False, or None for none."""
    complete = {path_of: tls for path_of, _, tls in _effective(owner, path, report)}
    return replace(
        owner,
        listen=tuple(replace(one, tls=complete[path_of]) for path_of, one in listeners(owner, path, report)),
    )


def check_tls(owner: Pool | Admin, path: str, report: Report) -> None:
    """Check that each listener that speaks TLS has what it takes, by making a context that is not kept."""
    for path_of, listen, tls in _effective(owner, path, report):
        own, inherited = f"{path_of}.tls", join(path, "tls")
        if report.blames(own, inherited):
            continue
        if listen.tls is True and _of_all(owner) is None:
            message = "expected a mapping with cert, or tls of the pool to inherit, got true"
            report.mistake(report.place(own), own, message)
        elif isinstance(tls, Tls):
            from prefork.tls import TlsMistake, make_context  # without TLS, nobody needs the module ssl

            try:
                make_context(tls)
            except TlsMistake as mistake:
                places = [f"{own}.{mistake.key}", f"{inherited}.{mistake.key}"]
                # Where it was set; what is missing is missing where the listener's own section is, if it has one.
                where = next((p for p in places if p in report.origins), None)
                where = where or places[0 if isinstance(listen.tls, Tls) else 1]
                report.mistake(report.place(where), where, mistake.message)


def _effective(
    owner: Pool | Admin, path: str, report: Report
) -> Iterator[tuple[str, Listen, Tls | bool | None]]:
    """Yield each valid listener with its path and its complete ``tls``."""
    for path_of, listen in listeners(owner, path, report):
        own, base = listen.tls, _of_all(owner)
        if isinstance(own, Tls):
            written = {f.name for f in fields(Tls) if f"{path_of}.tls.{f.name}" in report.origins}
            yield path_of, listen, replace(base or own, **{name: getattr(own, name) for name in written})
        else:
            yield path_of, listen, False if own is False and base else base if own is not False else None


def _of_all(owner: Pool | Admin) -> Tls | None:
    """Return what the listeners inherit; the admin's each have their own."""
    return owner.tls if isinstance(owner, Pool) else None
