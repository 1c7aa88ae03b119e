"""The parts of the config that the web server reads; runs only in a worker."""

from __future__ import annotations

from typing import Protocol


class Timeouts(Protocol):
    """``timeouts`` of the config, in seconds; 0 for none."""

    @property
    def keep_alive(self) -> float: ...

    @property
    def head(self) -> float: ...

    @property
    def body(self) -> float: ...

    @property
    def send(self) -> float: ...


class Limits(Protocol):
    """``limits`` of the config, in bytes or numbers."""

    @property
    def request_line(self) -> int: ...

    @property
    def fields(self) -> int: ...

    @property
    def head(self) -> int: ...

    @property
    def body(self) -> int: ...

    @property
    def body_memory(self) -> int: ...

    @property
    def response_memory(self) -> int: ...

    @property
    def memory(self) -> int: ...

    @property
    def spool(self) -> int: ...

    @property
    def connections(self) -> int: ...
