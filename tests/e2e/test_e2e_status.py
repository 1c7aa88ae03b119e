"""The status tells the truth, through deaths, reloads, upgrades and the end of pools."""

from __future__ import annotations

import os
import signal
from threading import Event, Thread
from typing import Any

import pytest
from harness import HELLO, Server, wait_for
from watching import Watcher

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
log: {access: off}
"""

RISING = ("requests", "errors", "accepted", "received_bytes", "sent_bytes", "spawned")


class Reading(Thread):
    """Reads the status all the time, and notes whatever cannot be."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._watcher = Watcher(server)
        self._before: dict[str, int] = {}
        self.enough = Event()
        self.reads = self.missed = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.enough.wait(0.001):
            found = self._watcher.status_if_any()
            if found is None:
                self.missed += 1
            else:
                self.reads += 1
                self._check(found["pools"]["myapp"])

    def _check(self, pool: dict[str, Any]) -> None:
        now = {key: pool[key] for key in RISING}
        now |= {f"died of {reason}": count for reason, count in pool["deaths"].items()}
        now["took time"] = sum(pool["latency"]["application"])
        for key, before in self._before.items():
            if now.get(key, 0) < before:
                self.wrong.append(f"{key} fell from {before} to {now.get(key)}")
        self._before = now
        if not 0 <= now["requests"] - now["took time"] <= 1:  # one may be in the middle of being counted
            self.wrong.append(f"{now['requests']} requests, but {now['took time']} in the histogram")
        lives = pool["spawned"] - sum(pool["deaths"].values())
        if lives != len(pool["workers"]):
            self.wrong.append(f"{len(pool['workers'])} workers live, but {lives} are not dead")


def test_no_counter_falls_while_workers_are_killed(server: Server) -> None:
    kills = 20
    server.serve(CONFIG.replace("workers: 2", f"workers: {kills + 1}"))  # in no slot twice, which would wait
    watcher = Watcher(server)
    reading = Reading(server)
    reading.start()
    try:
        for slot in range(kills):
            for answers in range(4 * slot, 4 * slot + 4):
                assert server.get() == (200, "hello")
                # A worker counts when it has answered; only then it may die.
                wait_for(lambda more=answers: watcher.pool()["requests"] > more, "its count")
            [pid] = [w["pid"] for w in watcher.pool()["workers"] if w["slot"] == f"myapp.{slot}"]
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda dead=pid: dead not in [w["pid"] for w in watcher.pool()["workers"]], "its end")
    finally:
        reading.enough.set()
        reading.join()
    assert reading.wrong == []
    assert reading.reads > kills
    assert reading.missed == 0
    pool, answers = watcher.pool(), 4 * kills
    assert (pool["requests"], pool["errors"], pool["by_method"]) == (answers, 0, {"GET": {"2xx": answers}})
    assert pool["sent_bytes"] == answers * len("hello")
    assert pool["deaths"] == {"died": kills}
    deaths = watcher.status()["deaths"]
    assert len(deaths) == kills
    assert deaths[0] | {"slot": "", "pid": 0, "at": "", "uptime_s": 0.0, "requests": 0} == {
        "slot": "",
        "pid": 0,
        "pool": "myapp",
        "generation": 1,
        "reason": "died",
        "detail": None,
        "exit_status": None,
        "signal": "SIGKILL",
        "expected": False,
        "at": "",
        "uptime_s": 0.0,
        "requests": 0,
        "stack": None,
    }
    assert sum(death["requests"] for death in deaths) + sum(w["requests"] for w in pool["workers"]) == answers


def test_a_life_is_told_through_reloads_an_upgrade_and_the_stop(server: Server) -> None:
    server.configure(CONFIG, "import os\nwhile not os.path.exists('go'):\n    pass\n" + HELLO)
    server.start()
    watcher = Watcher(server)
    found = watcher.status()
    assert (found["state"], found["ready"], found["healthy"]) == ("booting", False, True)
    assert (found["pools"]["myapp"]["workers"], found["pools"]["myapp"]["workers_wanted"]) == ([], 2)
    server.write("go", "")
    server.wait_for_log("serving on ")
    server.write("myapp.py", HELLO)
    found = wait_for(lambda: (s := watcher.status())["ready"] and s, "readiness")
    assert (found["state"], found["generation"], found["pid"]) == ("serving", 1, server.pid)
    [listener] = found["pools"]["myapp"]["listeners"]
    assert listener == {"address": f"127.0.0.1:{server.port}", "queue": 0, "backlog": 2048}
    assert found["last_reload"] is None
    for _ in range(5):
        assert server.get() == (200, "hello")

    server.write("app.yaml", CONFIG + "wrkers: 3\n")
    assert server.reload() == "failed"
    server.write("app.yaml", CONFIG)
    server.write("myapp.py", "import nothing_there\n")
    assert server.reload() == "failed"
    server.write("myapp.py", HELLO)
    assert server.reload() == "reloaded"
    found = wait_for(lambda: (s := watcher.status())["state"] == "serving" and s, "the end of the reload")
    assert [(r["result"], r["generation"]) for r in found["reloads"]] == [
        ("ok", 4),
        ("failed", 3),
        ("failed", 2),
    ]
    assert found["last_reload"] == found["reloads"][0]
    assert "app.yaml:6:1: wrkers: " in found["reloads"][2]["error"]
    error = found["reloads"][1]["error"]
    assert error.startswith(
        "myapp gen 3: the application cannot be loaded: cannot load myapp:app: importing it "
    )
    assert error.endswith(
        f"ModuleNotFoundError: No module named 'nothing_there' ({server.folder}/myapp.py:1)"
    )
    assert found["reloads_total"] == {"ok": 1, "failed": 2}
    assert (found["generation"], found["pools"]["myapp"]["generations"][-1]) == (4, 4)

    [mold] = server.molds("gen 4")
    os.kill(mold, signal.SIGKILL)
    death = wait_for(lambda: [d for d in watcher.status()["deaths"] if d["slot"] is None], "a mold's death")[
        0
    ]
    assert (death["pid"], death["reason"], death["signal"]) == (mold, "mold-died", "SIGKILL")
    wait_for(
        lambda: watcher.status()["pools"]["myapp"]["deaths"] == {"retired": 2}, "the end of the old workers"
    )
    before = watcher.status()

    server.send_signal(signal.SIGUSR2)
    after = wait_for(lambda: (s := watcher.status())["generation"] == 5 and s, "an upgrade, and its reload")
    assert after["last_upgrade"]["result"] == "ok"
    assert after["last_upgrade"]["predecessor"] == after["version"]
    assert after["reloads"][1:] == before["reloads"]
    assert after["deaths"][-3:] == before["deaths"]
    assert after["uptime_s"] > before["uptime_s"]
    assert after["pools"]["myapp"]["requests"] == before["pools"]["myapp"]["requests"] == 5

    server.send_signal(signal.SIGTERM)
    seen = set()
    while (found := watcher.status_if_any()) and server.process is not None and server.process.poll() is None:
        seen.add((found["state"], found["ready"]))
    assert seen <= {("serving", True), ("draining", False)}


@pytest.mark.measured
def test_the_counters_of_a_pool_go_on_when_it_comes_back(server: Server) -> None:
    pools = "pools: {myapp: {app: 'myapp:app', listen: '127.0.0.1:0'}"
    common = "workers: 1\nlog: {access: off}\n"
    other = f"{common}{pools}, other: {{app: 'myapp:app', listen: 'unix:./other.sock'}}}}\n"
    server.serve(other)
    watcher = Watcher(server)
    assert watcher.pool("other")["spawned"] == 1
    server.write("app.yaml", f"{common}{pools}}}\n")
    assert server.reload() == "reloaded"
    wait_for(lambda: "other" not in watcher.status()["pools"], "the end of the pool")
    server.write("app.yaml", other)
    assert server.reload() == "reloaded"
    pool = wait_for(lambda: (p := watcher.pool("other"))["workers"] and p, "its return")
    assert (pool["spawned"], pool["deaths"]) == (2, {"retired": 1})
