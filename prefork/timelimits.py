"""How long requests may run, by their paths: ``timeouts.request`` and ``slow`` with their overrides.

Used by workers, which look the limits up, and by the master, which must look in time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class PathLimits(Protocol):
    """One of ``timeouts.overrides``, in seconds."""

    @property
    def path(self) -> str: ...

    @property
    def request(self) -> float: ...

    @property
    def slow(self) -> float | None: ...


class Limits(NamedTuple):
    """Durations from the start of a request, in nanoseconds; 0 for none."""

    deadline_ns: int
    slow_ns: int


class TimeLimits:
    """The limits of all paths of a pool; durations in seconds, 0 for none."""

    def __init__(self, request_s: float, slow_s: float, overrides: Sequence[PathLimits] = ()) -> None:
        self.default = _limits(request_s, slow_s)
        by_length = sorted(overrides, key=lambda one: len(one.path.rstrip("/")), reverse=True)
        self._by_path = [(one.path.rstrip("/"), _of_path(one, slow_s)) for one in by_length]
        self.vary = bool(overrides)
        """Is ``default`` not the whole truth?"""

    def of(self, path: str) -> Limits:
        """Return the limits of a decoded path, as in PATH_INFO (PEP 3333)."""
        for base, limits in self._by_path:
            if path.startswith(base) and path[len(base) : len(base) + 1] in ("", "/"):
                return limits
        return self.default

    def all_s(self) -> Iterator[float]:
        """Yield each limit that there is, in seconds."""
        for limits in (self.default, *(limits for _, limits in self._by_path)):
            yield from (limit_ns / 1e9 for limit_ns in limits if limit_ns)


def _of_path(one: PathLimits, default_slow_s: float) -> Limits:
    slow_s = one.slow
    if slow_s is None:
        slow_s = min(default_slow_s, one.request / 2) if one.request else default_slow_s
    return _limits(one.request, slow_s)


def _limits(request_s: float, slow_s: float) -> Limits:
    return Limits(int(request_s * 1e9), int(slow_s * 1e9))
