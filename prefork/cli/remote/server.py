"""A running server, as a command sees it. Runs in a command."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prefork.cli.remote.connection import Answer, Connection, ConnectionEnded, NoServerError
from prefork.cli.remote.finding import find
from prefork.cli.remote.texts import stacks_text
from prefork.control_protocol import shown
from prefork.errors import ExitStatus, PreforkError
from prefork.process import Ending

OnProgress = Callable[[Answer], None]

EACH_S = 10.0
"""How long the answer to what a person has asked for may take."""
LOOK_S = 2.0
"""The same for a look that is repeated anyway."""
CHANGE_NOTHING = ("status", "stacks", "diff")
"""Asked once more when the connection ends, as it does in the exec of an upgrade: the next version answers."""


class CommandFailed(PreforkError):
    """The server has refused a command, or it failed; the status is the server's."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer.get("message")))
        self.status = ExitStatus(answer.get("status", ExitStatus.INTERNAL))


class RemoteServer:
    """The server at an address; each question is a connection of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    @classmethod
    def find(
        cls, files: tuple[str, ...], control: str | None, deadline: float, *, changes: bool
    ) -> RemoteServer:
        """Find the server that is meant, in order to change it or not. Raises ``NoServerError``."""
        with find(files, control, deadline, changes=changes) as connection:
            return cls(connection.address)

    def ask(
        self,
        command: str,
        deadline: float,
        on_progress: OnProgress = lambda _: None,
        **arguments: Any,
    ) -> Answer:
        """Return the answer, whatever its status."""
        try:
            with Connection.open(self.address, deadline) as connection:
                return connection.ask(command, deadline, on_progress, **arguments)
        except ConnectionEnded:
            if command not in CHANGE_NOTHING:
                raise
        with Connection.open(self.address, deadline) as connection:
            return connection.ask(command, deadline, on_progress, **arguments)

    def upgrade(self, deadline: float, on_progress: OnProgress, *, wait: bool) -> Answer:
        """Upgrade, and hear from the version that takes over how that went: its exec closes the connection."""
        try:
            return self.ask("upgrade", deadline, on_progress, wait=wait)
        except ConnectionEnded:
            pass
        try:
            return self.ask("upgraded", deadline, on_progress)
        except NoServerError as error:
            raise PreforkError("the server ended in the middle of the upgrade; its log says why") from error

    def stop(self, deadline: float, on_progress: OnProgress) -> Answer:
        """Stop, and wait until the process is gone."""
        with Connection.open(self.address, deadline) as connection:
            ending = Ending(connection.pid) if connection.pid else None
            try:
                return connection.ask("stop", deadline, on_progress)
            except ConnectionEnded:
                pass
            if ending is not None and not ending.wait(max(0.0, deadline - time.monotonic())):
                raise PreforkError(f"the server stopped, but its process {connection.pid} is still there")
        return {"status": 0, "message": "the server has stopped", "pid": connection.pid}

    # For who looks at it live

    def status(self) -> dict[str, Any]:
        """Return the status document. Raises ``PreforkError``."""
        answer = self._ask_now("status", LOOK_S)
        result: dict[str, Any] = answer["result"]
        return result

    def stacks(self, slot: str) -> str:
        """Return the stacks of a worker, as text. Raises ``PreforkError``."""
        return stacks_text(self._ask_now("stacks", EACH_S, slot=slot)["workers"])

    def recycle(self, slot: str) -> None:
        """Order a successor for a worker, and do not wait for it. Raises ``PreforkError``."""
        self._ask_now("recycle", EACH_S, slot=slot, wait=False)

    def _ask_now(self, command: str, patience_s: float, **arguments: Any) -> Answer:
        answer = self.ask(command, time.monotonic() + patience_s, **arguments)
        if answer.get("status") != ExitStatus.OK:
            raise CommandFailed(answer)
        return answer

    def __str__(self) -> str:
        return shown(self.address)
