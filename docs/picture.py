"""Take the picture of the page that README.md shows, in both themes: ``make picture``.

The example shop serves some load, with a slow request, a worker that died, and a reload that failed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from chromium import Chromium, Tab, until

ROOT = Path(__file__).parent.parent
CONFIG = """
app: shop:app
pythonpath: [{root}/examples]
env: {{SHOP_DATA: {folder}/data}}
listen: 127.0.0.1:{port}
workers: 8
timeouts: {{slow: 3s}}
log: {{access: off}}
admin: {{listen: 127.0.0.1:{admin}}}
control: {folder}/control.sock
"""
VISITS = ["/", "/api/products", "/product/1", "/product/2", "/product/3", "/cart"]
VISITORS, PACE_S, LOAD_S = 6, 0.03, 60.0
SIZE = (1280, 840)


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def visit(address: str, seed: int, over: threading.Event) -> None:
    """Ask for pages, now and then for one that takes its time."""
    chance = random.Random(seed)
    while not over.wait(chance.expovariate(1 / PACE_S)):
        path = chance.choice(VISITS)
        if chance.random() < 0.004:
            path = "/boom"
        if chance.random() < 0.02:
            path = f"/slow?seconds={chance.uniform(0.2, 2):.2f}"
        fetch(address + path)


def fetch(url: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            response.read()
    except OSError:
        pass  # the worker that dies for the picture


def happen(pid: int, config: Path, address: str, status: str) -> None:
    """Let a reload go through, one fail, and a worker die in the middle of a request."""
    text = config.read_text()
    for changed in (text, text.replace("shop:app", "shop:ap"), text):
        config.write_text(changed)
        os.kill(pid, signal.SIGHUP)
        time.sleep(LOAD_S / 8)
    threading.Thread(target=fetch, args=(address + "/slow?seconds=20",)).start()
    until(lambda: stuck(status), lambda: "a request that takes long")
    os.kill(stuck(status)[0], signal.SIGSEGV)


def stuck(status: str) -> list[int]:
    """Return the pids of the workers whose request takes longer than any visitor's."""
    with urllib.request.urlopen(status) as response:
        (pool,) = json.load(response)["pools"].values()
    return [
        worker["pid"] for worker in pool["workers"] for each in worker["running"] if each["elapsed_s"] > 2.5
    ]


def take(tab: Tab, path: Path) -> None:
    """Write the picture, in few colours: it has not many, and is small so."""
    tab.wait_for("document.fonts.ready.then(() => true)")
    tab.screenshot(path)
    subprocess.run(["pngquant", "--force", "--skip-if-larger", "--output", path, "64", path], check=True)


def main() -> int:
    """Write docs/page-light.png and docs/page-dark.png."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port, admin = free_ports()
        config = folder / "shop.yaml"
        config.write_text(CONFIG.format(root=ROOT, folder=folder, port=port, admin=admin))
        log = folder / "server.log"
        command = [sys.executable, "-m", "prefork", "-c", "shop.yaml"]
        with open(log, "wb") as output:
            server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        over = threading.Event()
        browser = Chromium(folder)
        try:
            until(lambda: "serving on" in log.read_text(), log.read_text)
            address = f"http://127.0.0.1:{port}"
            for seed in range(VISITORS):
                threading.Thread(target=visit, args=(address, seed, over)).start()
            tab = browser.open(f"http://127.0.0.1:{admin}/")
            tab.look(*SIZE, "light", scale=1.5)
            happen(server.pid, config, address, f"http://127.0.0.1:{admin}/status")
            time.sleep(LOAD_S / 2)
            for path in ("/slow?seconds=9", "/slow?seconds=6"):
                threading.Thread(target=fetch, args=(address + path,)).start()
            tab.wait_for("document.querySelectorAll('.tile.slow').length == 2")
            for scheme in ("light", "dark"):
                tab.look(*SIZE, scheme, scale=1.5)
                take(tab, ROOT / "docs" / f"page-{scheme}.png")
        finally:
            over.set()
            browser.close()
            server.terminate()
            server.wait(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
