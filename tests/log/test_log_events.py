"""Events: one line each that nothing from outside can forge, and JSON that is always JSON."""

import json
import os
import re

import pytest

from prefork.log import Destination, Log
from prefork.log.format import TEXT_LIMIT
from prefork.log.stream import ErrorStream

NASTY = 'a\nb\r\x1b[31m\x85\u2028\u202e\x9b\ud800\x00\t"\\é'


class Lines:
    """A log to a file, and what is in it."""

    def __init__(self, path, **options):
        self._path = path
        self.log = Log(Destination.open(str(path)), **options)

    def text(self):
        return self._path.read_text("utf-8")

    def json(self):
        return [json.loads(line) for line in self.text().split("\n")[:-1]]


@pytest.fixture
def lines(tmp_path):
    return lambda **options: Lines(tmp_path / "x.log", **options)


def test_text(lines):
    made = lines()
    log = made.log.bind("web.2 gen 3 pid 411", slot="web.2", generation=3, pid=411)
    log.debug("quiet", "not written")
    log.warning("worker-died", "killed by SIGKILL", uptime_s=1.5)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning  web\.2 gen 3 pid 411: killed by SIGKILL\n",
        made.text(),
    )


def test_text_cannot_be_forged(lines):
    made = lines()
    made.log.error("request-failed", NASTY, target="/no\x1bt shown", traceback=f"Traceback:\n  {NASTY}\n")
    head, *rest = made.text().splitlines()
    assert head.endswith("Z error    a")
    assert rest == [
        r'    b\r\x1b[31m\x85\u2028\u202e\x9b\ud800\x00\t"\é',
        "    Traceback:",
        "      a",
        r'    b\r\x1b[31m\x85\u2028\u202e\x9b\ud800\x00\t"\é',
    ]


def test_text_tells_a_traceback_without_frames(lines):
    made = lines()
    made.log.error(
        "request-failed", "GET /", target="/", traceback="RuntimeError: start_response was not called"
    )
    _, *rest = made.text().splitlines()
    assert rest == ["    RuntimeError: start_response was not called"]


def test_json(lines):
    made = lines(format="json", fields={"env": "prod"}, rename={"time": "@timestamp", "slot": "worker"})
    log = made.log.bind("web.2 gen 3 pid 411", slot="web.2")
    log.info("worker-ready", "ready", took_s=0.25, traceback="a\nb")
    (record,) = made.json()
    assert list(record) == ["@timestamp", "level", "event", "message", "env", "worker", "took_s", "traceback"]
    assert record["event"], record["traceback"] == ("worker-ready", "a\nb")


class Broken:
    def __str__(self):
        raise RuntimeError("no")


def test_json_is_valid_whatever_the_fields_are(lines):
    made = lines(format="json")
    made.log.info("x", NASTY, a=float("nan"), b=Broken(), c={1: [NASTY, b"\xff"]}, d=None, e=True, f=2**70)
    assert len(made.text().splitlines()) == 1
    (record,) = made.json()
    nasty = NASTY.replace("\ud800", "\ufffd")
    assert record["message"] == nasty
    assert record["a"] == "nan"
    assert record["b"] == "<Broken: RuntimeError in __str__>"
    assert record["c"] == {"1": [nasty, "b'\\xff'"]}
    assert (record["d"], record["e"], record["f"]) == (None, True, 2**70)


@pytest.mark.parametrize("format", ["text", "json"])
def test_long_messages_are_cut_and_queries_redacted(lines, format):
    made = lines(format=format, redact_query=["token"])
    made.log.error(
        "x", "GET /a?x=1&token=s3cret HTTP/1.1", target="/a?%74oken=s3cret", traceback="y\n" * 10**6
    )
    text = made.text()
    assert "token=***" in text
    assert "s3cret" not in text
    assert len(text) < 5 * TEXT_LIMIT


def test_a_loss_is_told_in_the_format_of_the_log():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    log = Log(Destination(writer), format="json")
    for _ in range(40):
        log.info("big", "x" * TEXT_LIMIT)
    last = b""
    while b"log-lines-dropped" not in last:
        try:
            last = (last + os.read(reader, 1 << 20))[-500:]
        except BlockingIOError:
            log.info("again", "")
    record = json.loads(last.splitlines()[-1])
    assert record["message"].startswith(f"{record['lines']} lines of the log dropped")
    for fd in (reader, writer, *log.destination.fds):
        os.close(fd)


def test_error_stream(lines):
    made = lines(format="json")
    stream = ErrorStream(made.log)
    stream.write("un")
    stream.write("finished")
    stream.flush()
    stream.writelines(["one\n", "event\n"])
    print("printed", 1, file=stream)
    stream.write("\n")
    with pytest.raises(TypeError):
        stream.write(b"bytes")
    assert [record["message"] for record in made.json()] == ["unfinished", "one\nevent", "printed 1"]
    assert {(record["level"], record["event"]) for record in made.json()} == {("error", "wsgi-errors")}
