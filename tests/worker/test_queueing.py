"""How long a request has waited for a worker."""

from __future__ import annotations

import socket
from time import time

import pytest

from prefork.worker.queueing import has_bytes, last_received_s, since_start_s


@pytest.mark.parametrize("unit", [1, 1000, 10**6, 10**9])
@pytest.mark.parametrize("prefix", ["", "t="])
def test_what_proxies_say_of_the_start(unit: int, prefix: str) -> None:
    assert since_start_s(f"{prefix}{int((time() - 7) * unit)}") == pytest.approx(7, abs=2)
    assert since_start_s(f" {prefix}{time() - 7:.3f} ") == pytest.approx(7, abs=1)


@pytest.mark.parametrize("text", ["", "soon", "t=", "-5", "1e9", "0", "12", "4000000000", "9" * 40])
def test_what_makes_no_sense_is_no_wait(text: str) -> None:
    assert since_start_s(text) == 0


def test_the_kernel_tells_how_long_ago_the_last_bytes_came() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            assert not has_bytes(accepted)
            client.sendall(b"x")
            accepted.recv(1, socket.MSG_PEEK)
            assert has_bytes(accepted)
            before = last_received_s(accepted)
            assert 0 <= before < 5
            began = time()
            while last_received_s(accepted) < before + 0.05:
                assert time() < began + 10
