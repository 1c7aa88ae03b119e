"""A headless Chromium, driven by its DevTools protocol over a pair of pipes: no library, no port.

`--remote-debugging-pipe`: messages are JSON, each ended by a NUL; commands to descriptor 3, answers and events on 4.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0
COMMAND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

Message = dict[str, Any]


class Chromium:
    """The browser; `open` makes tabs."""

    def __init__(self, folder: Path) -> None:
        assert COMMAND is not None
        commands_read, self._commands = high_pipe()
        self._answers, answers_write = high_pipe()
        arguments = [
            "--headless=new",
            "--no-sandbox",  # for root; it sees nothing but pages of ours
            "--disable-dev-shm-usage",  # /dev/shm of a container may be tiny
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ]

        # The protocol wants the numbers 3 and 4; a shell puts them there, without code of ours after a fork.
        wiring = f'exec "$0" "$@" 3<&{commands_read} 4>&{answers_write} {commands_read}<&- {answers_write}>&-'
        with open(folder / "chromium.log", "wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", wiring, COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(commands_read, answers_write),
                start_new_session=True,
            )
        os.close(commands_read)
        os.close(answers_write)
        self._buffer = b""
        self._serial = 0
        self.events: list[Message] = []

    def call(self, method: str, session: str | None = None, **params: object) -> Message:
        """Send a command and return its result; events that come meanwhile are kept."""
        self._serial += 1
        message: Message = {"id": self._serial, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") != self._serial:
                self.events.append(answer)
            elif "error" in answer:
                raise AssertionError(f"{method}: {answer['error']}")
            else:
                result: Message = answer["result"]
                return result

    def _receive(self, deadline: float, what: str) -> Message:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._answers, 1 << 20) if ready else b""
            if not chunk:
                raise AssertionError(f"Chromium did not answer to {what} within {PATIENCE_S:g} s, or ended")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: Message = json.loads(line)
        return message

    def open(self, url: str = "about:blank", **look: object) -> Tab:
        return Tab(self, url, **look)  # type: ignore[arg-type]

    def close(self) -> None:
        try:
            self.call("Browser.close")
        except (AssertionError, OSError):
            pass
        os.close(self._commands)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE_S)
        os.close(self._answers)


def high_pipe() -> list[int]:
    """Return a pipe whose numbers are not those that the protocol wants."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high


class Tab:
    """One page."""

    def __init__(
        self, browser: Chromium, url: str, width: int = 1440, height: int = 900, scheme: str = "light"
    ) -> None:
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.look(width, height, scheme)
        self.go(url)

    def call(self, method: str, **params: object) -> Message:
        return self.browser.call(method, self.session, **params)

    def look(self, width: int, height: int, scheme: str, scale: float = 1, motion: str = "reduce") -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, which may be a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the visible text of the first element, empty when there is none."""
        found = self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return " ".join(str(found).split())

    def wait_for(self, expression: str, what: str = "", patience_s: float = PATIENCE_S) -> None:
        """Wait until an expression is true."""
        until(
            lambda: self.evaluate(f"!!({expression})"),
            lambda: (
                f"{what or expression}; the page says: {self.text('body')}; complaints: {self.complaints()}"
            ),
            patience_s,
        )

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "char", "keyUp") if key == "Enter" else ("rawKeyDown", "keyUp"):
            text = {"text": "\r"} if kind == "char" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))

    def complaints(self) -> list[str]:
        """Return what the browser wrote to this tab's console: errors, warnings, violations of the policy."""
        self.evaluate("0")
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            params = event["params"]
            if event["method"] == "Log.entryAdded":
                found.append(f"{params['entry']['level']}: {params['entry']['text']}")
            elif event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"])[:2000])
            elif event["method"] == "Runtime.consoleAPICalled":
                found.append(f"{params['type']}: {params['args']}")
        return found

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)


def until(condition: Callable[[], Any], what: Callable[[], str], patience_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:g} s in vain for {what()}")
        time.sleep(0.02)  # between two looks at the condition
