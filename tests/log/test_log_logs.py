"""All logs of a server, opened from the config and reopened after a rotation."""

import io
import json
import logging
import os
import subprocess
import sys

import pytest

from prefork.config.schema import Log as Settings
from prefork.errors import ConfigError
from prefork.log import AccessEntry, Logs
from prefork.log.capture import capture_output


def settings(**changes):
    values = {
        "level": "info",
        "format": "text",
        "to": "off",
        "access": "off",
        "access_format": "auto",
        "access_when": "all",
        "access_skip": (),
        "redact_query": (),
        "fields": {},
        "rename": {},
        "capture_output": False,
    }
    return Settings(**(values | changes))


def test_rotation_reaches_every_process(tmp_path):
    events, access = tmp_path / "events.log", tmp_path / "access.log"
    logs = Logs(settings(to=str(events), access=str(access), format="json"))
    assert len(logs.fds) == 2
    entry = AccessEntry("192.0.2.7", "GET", "/", "HTTP/1.1", 200, 2, 0.0, 1)
    before = logs.fds
    for path in (events, access):
        os.rename(path, f"{path}.1")
    received = [os.dup(fd) for fd in logs.reopen().fds]
    logs.replace(received)
    assert logs.fds == before
    logs.log.info("worker-ready", "ready")
    worker = logs.bind("web.0", slot="web.0")
    worker.access.record(entry)
    worker.flush()
    assert '"event":"worker-ready"' in events.read_text()
    assert '"slot":"web.0"' in access.read_text()
    assert (tmp_path / "events.log.1").read_text() == ""
    for fd in logs.fds:
        os.close(fd)


def test_a_mistake_in_the_access_format_is_one_of_the_config():
    with pytest.raises(ConfigError, match=r"^log\.access_format: unknown atom '%\(z\)s' at character 1;"):
        Logs(settings(access="stdout", access_format="%(z)s"))


def test_logging_belongs_to_the_application():
    subprocess.run(
        [sys.executable, "-c", "import sys, prefork.log; sys.exit('logging' in sys.modules)"], check=True
    )


def test_off_is_off():
    logs = Logs(settings())
    logs.log.error("x", "y")
    assert logs.access is None
    assert logs.fds == ()
    assert logs.reopen() == ([], [])


def test_captured_output(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    path = tmp_path / "events.log"
    logs = Logs(settings(to=str(path), format="json", capture_output=True))
    capture_output(logs.bind("", slot="mold"))
    handler = logging.StreamHandler()
    sys.stdout.reconfigure(line_buffering=True)
    print("imported")
    print("half a line", end="")
    capture_output(logs.bind("", slot="web.0"))
    handler.handle(logging.LogRecord("app", logging.ERROR, "", 1, "failed\nTraceback", (), None))
    sys.stdout.buffer.write("bytes é\n".encode())
    assert sys.stderr.fileno() == 2
    records = map(json.loads, path.read_text().splitlines())
    assert [(record["slot"], record["event"], record["message"]) for record in records] == [
        ("mold", "stdout", "imported"),
        ("web.0", "stderr", "failed\nTraceback"),
        ("web.0", "stdout", "bytes é"),
    ]


@pytest.mark.parametrize("unbuffered", [False, True], ids=["usual", "PYTHONUNBUFFERED"])
def test_what_is_printed_is_written_in_whole_lines(monkeypatch, unbuffered):
    writes = []

    class Descriptor(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            writes.append(bytes(data))
            return len(data)

    raw = Descriptor()
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(raw if unbuffered else io.BufferedWriter(raw), write_through=unbuffered)
        monkeypatch.setattr(sys, name, stream)
    capture_output(Logs(settings()))
    print("some", "words", 1)
    print("and", "more", file=sys.stderr)
    assert writes == [b"some words 1\n", b"and more\n"]
