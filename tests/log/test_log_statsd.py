"""Figures by statsd, with a socket in the place of the daemon."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prefork.errors import ConfigError
from prefork.log import AccessEntry
from prefork.log.statsd import MOST_BYTES, Statsd


@dataclass
class Settings:
    address: str
    prefix: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture
def daemon() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        yield sock


def entry(status: int, elapsed_ns: int = 1_234_567) -> AccessEntry:
    return AccessEntry("127.0.0.1", "GET", "/", "HTTP/1.1", status, 5, 0.0, elapsed_ns)


def test_figures_have_the_names_of_gunicorn_and_tags_of_dogstatsd(daemon: socket.socket) -> None:
    address = f"127.0.0.1:{daemon.getsockname()[1]}"
    statsd = Statsd(Settings(address, "shop", {"env": "test", "canary": ""}))
    statsd.record(entry(200))
    statsd.flush()
    statsd.flush()  # nothing is left
    statsd.count_logged("error")
    statsd.tell_workers(3)
    tags = "|#env:test,canary"
    assert daemon.recv(4096).decode().splitlines() == [
        f"shop.gunicorn.request.duration:1.235|ms{tags}",
        f"shop.gunicorn.requests:1|c{tags}",
        f"shop.gunicorn.request.status.200:1|c{tags}",
    ]
    assert daemon.recv(4096).decode() == f"shop.gunicorn.log.error:1|c{tags}"
    assert daemon.recv(4096).decode() == f"shop.gunicorn.workers:3|g{tags}"
    statsd.close()


def test_no_datagram_is_longer_than_a_packet_and_none_is_lost(daemon: socket.socket) -> None:
    statsd = Statsd(Settings(f"127.0.0.1:{daemon.getsockname()[1]}"))
    for _ in range(100):
        statsd.record(entry(404))
    statsd.flush()
    statsd.close()
    requests = 0
    while requests < 100:
        datagram = daemon.recv(1 << 16)
        assert len(datagram) <= MOST_BYTES
        requests += datagram.count(b"gunicorn.requests:1|c")
    assert requests == 100


def test_nobody_there_is_nobody_s_trouble(tmp_path: Path) -> None:
    statsd = Statsd(Settings(f"unix:{tmp_path}/none"))
    statsd.record(entry(200))
    statsd.flush()
    statsd.close()


def test_a_host_that_is_not_found_is_a_mistake_of_the_config() -> None:
    with pytest.raises(ConfigError, match=r"^statsd\.address: no\.such\.invalid:1: "):
        Statsd(Settings("no.such.invalid:1"))
