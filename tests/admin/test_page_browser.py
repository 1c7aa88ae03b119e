"""The page in a real browser, before a server that says what a test wants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import axe_core_python
import pytest
from chromium import Chromium, Tab, until
from page_server import PageServer, pool, running, serving, status, worker

SHOTS = Path(__file__).parent.parent.parent / "var" / "page"
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
EVIL = "/<img src=x onerror=alert(1)>\"'&lt;script>alert(1)</script>"


@pytest.fixture
def server() -> Iterator[PageServer]:
    with serving(status()) as made:
        yield made


HURRY = "{ const later = window.setTimeout; window.setTimeout = (f, ms) => later(f, ms / 10); }"
"""A page that asks ten times as often, and is not changed for it."""


@pytest.fixture
def tab(server: PageServer, chromium: Chromium) -> Iterator[Tab]:
    made = chromium.open()
    made.call("Page.addScriptToEvaluateOnNewDocument", source=HURRY)
    made.go(server.url)
    yield made
    made.close()


def wait_for_text(tab: Tab, selector: str, text: str) -> None:
    until(
        lambda: text in tab.text(selector),
        lambda: f"{text!r} in {selector}: {tab.text(selector)!r}; complaints: {tab.complaints()}",
    )


def polls(server: PageServer) -> int:
    return server.asked.count("/status")


def test_figures_are_those_of_the_differences(server, tab):
    def each_second(document):
        shop = document["pools"]["shop"]
        shop["requests"] += 50
        shop["errors"] += 3
        for kind, counts in (("application", [0, 40, 0, 9, 0, 1, 0]), ("exchange", [0, 0, 0, 0, 50, 0, 0])):
            shop["latency"][kind] = [a + b for a, b in zip(shop["latency"][kind], counts, strict=True)]
        shop["workers"][0]["cpu_s"] += 0.25
        shop["listeners"][0]["queue"] = 12

    server.each_second = each_second
    wait_for_text(tab, ".chart-requests", "50 per second")
    wait_for_text(tab, ".chart-requests", "3 errors/s")
    # 25 of 40 requests into the bucket from 1 to 10 ms; 7.5 of 9 from 25 to 100 ms; half of one from 0.5 to 1 s
    wait_for_text(tab, ".chart-latency", "6.6 ms p50 88 ms p95 750 ms p99")
    wait_for_text(tab, ".chart-latency", "first to last byte: p95 480 ms")
    wait_for_text(tab, ".chart-queue", "12 of 2,048")
    wait_for_text(tab, ".chart-memory", "80 MiB in all 60 MiB private 20 MiB shared")
    wait_for_text(tab, "#worker-shop\\.0", "25 % CPU")
    assert tab.evaluate(
        "document.querySelectorAll('.chart path.area.requests')[0].getAttribute('d')"
    ).startswith("M")

    server.change(lambda document: document["pools"]["shop"].update(requests=10, errors=0))  # another server
    tab.wait_for(
        "document.querySelector('.pool > header p').textContent.split(' · ')[1].replace(/\\D/g, '') < 5000"
    )
    assert "-" not in tab.text(".chart-requests"), "nothing is less than nothing"
    wait_for_text(tab, ".chart-requests", "50 per second")
    assert not tab.complaints()


def test_tiles_change_in_place_and_keep_focus(server, tab):
    tab.wait_for("document.querySelectorAll('.tile.idle').length == 2")
    tab.evaluate("document.querySelector('#worker-shop\\\\.1 summary').focus()")
    tab.press("Enter", 13)
    slow = running("/report", 41.5, slow=True)
    other = worker(1, "draining", pid=390, generation=2, running=[running("/old", 2.0)])
    busy = worker(1, "busy", pid=777, running=[slow, running("/second", thread=1)])
    server.change(lambda document: document["pools"].update(shop=pool(worker(0, "booting"), busy, other)))
    wait_for_text(tab, "#worker-shop\\.1 .doing", "slow 41 s")
    wait_for_text(tab, "#worker-shop\\.1 .threads", "GET /second")
    wait_for_text(tab, "#worker-shop\\.1 .facts", "pid 777")
    assert tab.text("#worker-shop\\.1-390 .more").startswith("gen 2")
    assert tab.evaluate("document.activeElement.closest('.tile').id") == "worker-shop.1", "the focus stays"
    assert tab.evaluate("document.activeElement.matches(':focus-visible')")
    assert tab.text("#worker-shop\\.0 .doing") == "booting"
    assert tab.text(".census") == "1 slow 1 busy 1 booting 1 draining"
    assert tab.text("#running li") == "41 s GET /report slow, in shop.1"
    assert "1 now longest 41 s in shop.1" in tab.text("#answers")
    assert tab.text("#announcer") == "There are slow requests"
    assert tab.evaluate("document.title") == "▲ shop: slow requests, 1 now"
    tab.screenshot(SHOTS / "slow.png")
    assert not tab.complaints()


def test_what_clients_send_is_text(server, tab):
    busy = worker(0, "busy", running=[running(EVIL, 9.0, slow=True)])
    evil = {"reason": "request-deadline", "detail": f"GET {EVIL}", "stack": f'File "{EVIL}"\n' * 3}
    died = {
        "slot": "shop.0",
        "pid": 9,
        "pool": "shop",
        "generation": 3,
        "exit_status": None,
        "signal": "SIGKILL",
    }
    when = {"at": "2026-11-24T03:00:00Z", "uptime_s": 60.0, "requests": 2, "expected": False}
    failed = {"result": "failed", "error": EVIL, "generation": 4, "took_s": 0.1, "ended_at": when["at"]}
    tab.wait_for("document.querySelector('.tile')")
    nodes = "document.querySelectorAll('img, script, [onerror]').length"
    before = tab.evaluate(nodes)
    server.change(
        lambda document: document.update(
            pools={"shop": pool(busy, listeners=[{"address": EVIL, "queue": 1, "backlog": 5}])},
            deaths=[died | when | evil],
            last_reload=failed,
            reloads=[failed],
        )
    )
    wait_for_text(tab, "#worker-shop\\.0 .request", EVIL)
    tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    wait_for_text(tab, "#unexpected pre", EVIL)
    for selector in ("#running", "#reloads .why", ".listener"):
        assert EVIL in tab.text(selector)
    assert tab.text("#announcer").endswith("died: request-deadline. There are slow requests")
    assert tab.evaluate(nodes) == before
    assert not tab.complaints()


NEW = {"generation": 4}
RELOADED = {
    "result": "ok",
    "error": None,
    "generation": 3,
    "took_s": 1.25,
    "ended_at": "2026-11-24T03:00:00Z",
}


def test_answers(server, tab):
    busy = [worker(i, "busy") for i in range(2)]
    waiting = [{"address": ":8000", "queue": 5, "backlog": 9}]
    upgrade = {**RELOADED, "version": "0.2", "predecessor": "0.1"}
    for change, answer in [
        ({"ready": False}, "Service Not ready"),
        ({"healthy": False}, "Service Cannot boot workers"),
        ({"state": "draining"}, "Service Draining"),
        ({"state": "reloading"}, "Deploy Under way loading the application"),
        (
            {
                "state": "reloading",
                "pools": {"shop": pool(*busy, worker(2, **NEW), worker(3, "booting", **NEW))},
            },
            "Deploy Under way 1 of 4 workers ready",
        ),
        ({"reloads": [RELOADED], "last_reload": RELOADED}, "Deploy Went through "),
        ({"last_upgrade": upgrade}, "Deploy Upgraded to 0.2 from 0.1, "),
        ({"last_upgrade": {**upgrade, "result": "failed"}}, "Deploy Upgrade failed 0.1.0 serves on, "),
        ({"pools": {"shop": pool(*busy, listeners=waiting)}}, "Workers 2 of 2 busy 5 connections waiting"),
    ]:
        server.change(lambda document, change=change: document.update({**status(), **change}))
        wait_for_text(tab, "#answers", answer)
    tab.wait_for(
        "document.querySelector('.answer:nth-child(3)').classList.contains('bad')", "three polls of it"
    )
    assert not tab.complaints()


def test_an_outage_is_said_with_its_beginning(server, tab):
    tab.wait_for("document.querySelector('.tile')")
    server.failure = (503, "503 Service Unavailable\nthe master is gone")
    wait_for_text(tab, "#outage", "The server does not tell its status since ")
    wait_for_text(tab, "#outage", "503 Service Unavailable: the master is gone")
    wait_for_text(tab, "#outage", " attempts ago; it goes on trying. What you see below is from then.")
    assert tab.evaluate("document.title") == "✕ shop: no answer"
    assert tab.text("#answers").startswith("Service No answer since ")
    assert "does not tell its status" in tab.text("#announcer")
    tab.screenshot(SHOTS / "outage.png")
    server.failure = None
    tab.wait_for("document.querySelector('#outage').hidden")
    assert tab.text("#pulse").startswith("live, ")
    assert all("503" in complaint for complaint in tab.complaints()), (
        "the browser's own word on the failed requests"
    )


def test_it_rests_while_nobody_looks(server, tab, chromium):
    tab.wait_for("document.querySelector('.tile')")
    other = chromium.open(server.url)  # in front of the first
    tab.wait_for("document.hidden")
    hidden = "performance.getEntriesByType('resource').length"
    before = tab.evaluate(hidden)
    asked = polls(server)
    until(lambda: polls(server) >= asked + 3, lambda: "the other tab asks")
    assert tab.evaluate(hidden) <= before + 1, "one may have been on its way"
    other.close()
    tab.call("Page.bringToFront")
    tab.wait_for(f"{hidden} > {before + 1}", "it goes on")
    tab.evaluate("document.querySelector('#pause').focus()")
    tab.press("Enter", 13)
    wait_for_text(tab, "#pulse", "paused at ")
    assert tab.evaluate("document.querySelector('#pause').getAttribute('aria-pressed')") == "true"
    tab.press("Enter", 13)
    wait_for_text(tab, "#pulse", "live, ")


@pytest.mark.parametrize("path", ["/ops/shop", "/ops/shop/"])
def test_behind_a_prefix_and_a_token(server, chromium, path):
    server.prefix, server.token = "/ops/shop", "any:secret"
    tab = chromium.open(server.url.replace("//", "//any:secret@") + path)
    wait_for_text(tab, "h1", "shop")
    tab.wait_for("document.querySelector('.tile')")
    assert set(server.asked) <= {"/", "", "/status"}
    assert not [complaint for complaint in tab.complaints() if "401" not in complaint]
    tab.close()


def rich() -> dict[str, object]:
    """Return a status that shows everything that the page can show."""
    when = "2026-11-24T03:00:00Z"
    died = {
        "slot": "shop.0",
        "pid": 9,
        "pool": "shop",
        "generation": 3,
        "exit_status": 1,
        "signal": None,
        "at": when,
    }
    death = {
        **died,
        "uptime_s": 60.0,
        "requests": 2,
        "reason": "exited",
        "detail": "exit status 1",
        "stack": "a\nb",
    }
    reload = {"generation": 4, "took_s": 0.1, "ended_at": when}
    failed = {**reload, "result": "failed", "error": "Traceback:\nModuleNotFoundError: numpyy"}
    workers = [worker(i) for i in range(30)]
    workers[1:5] = [
        worker(1, "busy", running=[running("/" + "long-target/" * 300, 12.0, slow=True)]),
        worker(2, "busy", running=[running("/a")]),
        worker(3, "booting", uss_bytes=None, pss_bytes=None, rss_bytes=None, cpu_s=None, requests=None),
        worker(4, "draining", generation=2, running=[running("/b", 700.0, slow=True)]),
    ]
    full = pool(
        worker(0, "busy", "api", running=[running("/c")]),
        listeners=[{"address": "unix:" + "/run" * 30, "queue": 99, "backlog": 100}],
    )
    unknown = pool(
        latency=None,
        connections=dict.fromkeys(("idle", "reading")),
        slow=None,
        listeners=[{"address": "fd:3", "queue": None, "backlog": 5}],
    )
    return status(
        pools={"shop": pool(*workers), "api": full, "empty": unknown},
        deaths=[{**death, "expected": False}, {**death, "pid": 10, "expected": True}],
        last_reload=failed,
        reloads=[failed, {**reload, "result": "ok", "error": None}],
        last_upgrade={
            "result": "ok",
            "error": None,
            "version": "0.2",
            "predecessor": "0.1",
            "ended_at": when,
        },
    )


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 1920), ("light", 320)])
def test_everybody_can_read_it(server, chromium, scheme, width):
    server.document = rich()
    tab = chromium.open("about:blank", width=width, height=900, scheme=scheme)
    tab.call("Page.setBypassCSP", enabled=True)  # for the checker, which is not of the page
    tab.go(server.url)
    tab.wait_for("document.querySelectorAll('.tile').length >= 31")
    tab.evaluate("document.querySelectorAll('details').forEach((each, i) => { each.open = i % 3 === 0; })")
    tab.evaluate("document.querySelectorAll('.panel details').forEach((each) => { each.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") == width, "nothing is wider than the window"
    assert tab.evaluate("getComputedStyle(document.querySelector('.beat')).animationName") == "none"
    tab.evaluate(AXE)
    found = tab.evaluate(
        "axe.run(document, { resultTypes: ['violations'] }).then((all) => JSON.stringify(all.violations))"
    )
    problems = [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in json.loads(found)
        for node in violation["nodes"]
    ]
    tab.screenshot(SHOTS / f"{scheme}-{width}.png", whole=True)
    assert not problems, "\n".join(problems)
    tab.close()
