"""Which server a command takes when one does not answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork.cli.remote import finding
from prefork.cli.remote.connection import NoServerError


@pytest.fixture
def one_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that answers, beside one that does not."""
    paths = [str(tmp_path / name) for name in ("silent", "shop")]
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as shop:
        for sock, path in zip((silent, shop), paths, strict=True):
            sock.bind(path)
            sock.listen()

        def answer() -> None:
            while True:
                try:
                    client, _ = shop.accept()
                except OSError:
                    return
                with client:
                    if client.recv(4096):
                        client.sendall(
                            json.dumps({"type": "end", "status": 0, "name": "shop"}).encode() + b"\n"
                        )

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setattr(finding, "addresses", lambda: paths)
        monkeypatch.setattr(finding, "HELLO_S", 0.2)
        yield paths[1]
        shop.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_who_wants_to_change_a_server_has_to_say_which_if_one_is_silent(one_silent: str) -> None:
    deadline = time.monotonic() + 30
    with finding.find((), None, deadline, changes=False) as connection:
        assert connection.address == one_silent
    with pytest.raises(
        NoServerError, match=r"(?s)not all servers here answer; .*/silent .*/shop  shop \(pid "
    ):
        finding.find((), None, deadline, changes=True)
