"""The control socket: who may speak to the master, and that nobody who does can hold it up.

Runs in the master. Requests and answers are lines of JSON (docs/reference/control.md). While nobody is connected it
costs nothing: it is one more descriptor that the loop watches.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from prefork import __version__
from prefork.control_protocol import VERSION, encode, shown
from prefork.errors import ExitStatus, PreforkError, UsageError
from prefork.log import Log
from prefork.master.control_client import ControlClient, Peer
from prefork.master.control_commands import Commands, Master
from prefork.master.control_place import ControlPlace, PlaceRecord, open_control
from prefork.master.control_request import Request, Wait
from prefork.master.control_waits import Succession
from prefork.master.loop import Loop
from prefork.master.news import Happening, News, UpgradeStage

MOST_CLIENTS = 16
"""Connected at the same time; one more is told so, and left."""
ACCEPTED_AT_A_TIME = 16


class Control:
    """Listens from ``open`` or ``adopt`` to ``close``."""

    def __init__(self, loop: Loop, log: Log, news: News, master: Master) -> None:
        self._loop = loop
        self._log = log
        self._master = master
        self._place: ControlPlace | None = None
        self._clients: set[ControlClient] = set()
        self._waits: list[Wait] = []
        self._succession = Succession()
        self._commands = Commands(master, self._succession, self._expect)
        self._may = frozenset({0, os.geteuid()})
        news.listen(self._hear)

    def open(self, setting: str, name: str) -> None:
        """Listen where the config says. Raises ``ListenError`` if it names a path that cannot be had."""
        if setting == "off":
            return
        try:
            self._listen(open_control(setting, name))
        except PreforkError as error:
            if setting != "auto":
                raise
            self._log.warning("control-unavailable", f"no control socket, and so no commands: {error}")

    def adopt(self, record: PlaceRecord | None, setting: str, name: str) -> None:
        """Go on to listen where an older version of this process did; one that could not has left nothing."""
        if record is not None:
            self._listen(record.adopt())
        else:
            self.open(setting, name)

    def record(self) -> PlaceRecord | None:
        return None if self._place is None else self._place.record()

    def close(self) -> None:
        """Leave everybody, and remove the socket's file if it is still ours."""
        for client in list(self._clients):
            client.close()
        if self._place is not None:
            self._loop.unwatch(self._place.sock.fileno())
            self._place.close()
            self._place = None

    def turn_ended(self) -> None:
        """Something may have changed: see for whom that matters."""
        if self._waits:
            for wait in self._waits:
                if not wait.request.is_over:
                    wait.look()
            self._waits = [wait for wait in self._waits if not wait.request.is_over]

    def _listen(self, place: ControlPlace) -> None:
        self._place = place
        self._loop.watch(place.sock.fileno(), self._accept)
        self._log.debug("control-open", f"commands by {shown(place.address)}", address=shown(place.address))

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_A_TIME):
            if self._place is None:
                return
            try:
                sock, _ = self._place.sock.accept()
            except OSError:  # nobody is there any more, or there are no more descriptors
                return
            peer = Peer.of(sock)
            refusal = self._refusal(peer.uid)
            if refusal:
                _turn_away(sock, *refusal)
            else:
                self._clients.add(ControlClient(sock, self._loop, self._take, self._clients.discard, peer))

    def _refusal(self, uid: int) -> tuple[str, ExitStatus] | None:
        if uid not in self._may:
            self._log.warning("control-refused", f"a command of uid {uid} is refused", uid=uid)
            return f"{may_command(os.geteuid())}, and you are uid {uid}", ExitStatus.NO_SERVER
        if len(self._clients) >= MOST_CLIENTS:
            return f"{MOST_CLIENTS} others are connected already; try again", ExitStatus.INTERNAL
        return None

    def _take(self, client: ControlClient, line: bytes) -> None:
        """Carry out the request in a line."""
        try:
            request = _parse(client, line)
        except UsageError as error:
            client.end(str(error), error.status)
            return
        try:
            carry_out = self._commands.find(request.command)
            if request.command not in ("hello", "status"):
                pid, uid, _ = client.peer
                self._log.info(
                    "command",
                    f"{request.command}, asked for by uid {uid} (pid {pid})",
                    command=request.command,
                    uid=uid,
                )
            carry_out(request)
        except PreforkError as error:
            request.end(str(error), error.status, error=str(error))
        except Exception:
            request.end("a mistake in prefork, please report it; the log has more", ExitStatus.INTERNAL)
            raise

    def _expect(self, wait: Wait) -> None:
        self._waits.append(wait)

    def _hear(self, happening: Happening) -> None:
        self._succession.hear(happening)
        for wait in self._waits:
            if not wait.request.is_over:
                wait.hear(happening)
        if isinstance(happening, UpgradeStage) and happening.stage == "exec":
            for wait in self._waits:
                wait.replaced()


def may_command(uid: int) -> str:
    """Return who may use the control socket of a server that runs as a user."""
    return (
        "only root may command this server"
        if uid == 0
        else f"only uid {uid} and root may command this server"
    )


def _turn_away(sock: socket.socket, message: str, status: ExitStatus) -> None:
    """Say why, if it is taken at once, and close the connection."""
    with sock:
        sock.setblocking(False)
        answer: dict[str, Any] = {"v": VERSION, "type": "end", "status": int(status), "message": message}
        try:
            sock.send(encode(answer))
        except OSError:
            pass


def _parse(client: ControlClient, line: bytes) -> Request:
    """Return the request in a line. Raises ``UsageError``."""
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError):
        asked = None
    if isinstance(asked, dict) and asked.get("v", VERSION) != VERSION:
        raise UsageError(
            f"prefork {__version__} speaks version {VERSION} of the control protocol, not {asked['v']!r}"
        )
    if not (isinstance(asked, dict) and "v" in asked and isinstance(asked.get("command"), str)):
        raise UsageError('expected a line of JSON such as {"v":1,"command":"status"}')
    return Request(client, asked["command"], asked, waits=asked.get("wait") is not False)
