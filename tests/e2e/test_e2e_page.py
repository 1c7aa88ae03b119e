"""The page of a real server in a real browser: it sees a worker get busy, a slow request, a death, a reload."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest
from chromium import Chromium, Tab, until
from clients import GATE, hold, release
from harness import Server

CONFIG = """
app: myapp:app
name: shop
listen: 127.0.0.1:0
workers: 2
timeouts: {slow: 500ms}
admin: {listen: 127.0.0.1:%d, token: correct-horse}
control: off
"""


@pytest.fixture
def tab(server: Server, chromium: Chromium) -> Iterator[Tab]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server.serve(CONFIG % port, GATE)
    made = chromium.open(f"http://me:correct-horse@127.0.0.1:{port}/")
    yield made
    made.close()


def test_the_page_shows_what_happens(server: Server, tab: Tab) -> None:
    def shows(selector: str, text: str) -> None:
        until(
            lambda: text in tab.text(selector),
            lambda: f"{text!r} in {selector}: {tab.text(selector)!r}; {tab.complaints()}; {server.log}",
        )

    shows(".census", "2 idle")
    shows("#answers", "Serving generation 1")

    pending, pid = hold(server, "/hold/<img/onerror=alert(1)//>")
    shows(".census", "1 idle 1 busy")
    shows(".tile.busy .request", "GET /hold/<img/onerror=alert(1)//>")
    shows("#answers", "1 of 2 busy")
    shows(".tile.slow .doing", "slow")
    shows("#running", "slow, in shop.")
    assert tab.evaluate("document.querySelectorAll('img').length") == 0
    tab.screenshot(server.folder / "slow.png")

    os.kill(pid, signal.SIGSEGV)
    shows("#unexpected", "SIGSEGV")
    shows("#unexpected", "myapp.py:")
    shows("#answers", "1 this hour")
    shows(".census", "2 idle")
    assert pending.outcome() == "cut"
    release(server)

    assert server.reload() == "reloaded"
    shows("#answers", "Serving generation 2")
    shows("#answers", "Went through")
    shows("#expected-count", "2 expected ends")
    server.write("myapp.py", "import no_such_module\n")
    assert server.reload() == "failed"
    shows("#answers", "generation 2 serves on; why")
    shows("#reloads", "no_such_module")

    before = int(tab.text(".pool > header").split(" requests")[0].split()[-1])
    for _ in range(7):
        server.get()
    shows(".pool > header", f"{before + 7} requests")
    assert not [complaint for complaint in tab.complaints() if "401" not in complaint]

    assert server.stop() == 0
    shows("#outage", "since ")
    shows("#answers", "No answer")
