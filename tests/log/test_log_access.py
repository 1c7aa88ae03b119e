"""The access log: every atom, escaping, what is left out, and JSON."""

import json
import os
import time
from pathlib import Path

import pytest

from prefork.log import AccessEntry, AccessLog, Destination, Log, compile_access_format
from prefork.log.access import BUFFERED_LINES, path_matcher
from prefork.log.access_format import ATOMS, JSON_KEYS


def entry(**changes):
    values = {
        "remote_addr": "192.0.2.7",
        "remote_user": "ann",
        "method": "GET",
        "target": "/cart?id=1&token=t",
        "protocol": "HTTP/1.1",
        "status": 200,
        "sent_bytes": 512,
        "started_at": 1795518123.25,
        "elapsed_ns": 1_234_567_891,
        "environ": {
            "HTTP_REFERER": "http://x/?token=t",
            "HTTP_USER_AGENT": "curl",
            "CONTENT_TYPE": "a/b",
            "V": 7,
        },
        "response_headers": [("Content-Type", "text/html"), ("X-Cache", "hit")],
        "pid": 411,
    }
    return AccessEntry(**(values | changes))


@pytest.fixture
def zone(monkeypatch):
    monkeypatch.setenv("TZ", "XXX-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


GOLDEN = {
    "h": "192.0.2.7",
    "l": "-",
    "u": "ann",
    "t": "[24/Nov/2026:16:32:03 +0530]",
    "r": "GET /cart?id=1&token=t HTTP/1.1",
    "m": "GET",
    "U": "/cart",
    "q": "id=1&token=t",
    "H": "HTTP/1.1",
    "s": "200",
    "B": "512",
    "b": "512",
    "f": "http://x/?token=t",
    "a": "curl",
    "T": "1",
    "M": "1234",
    "D": "1234567",
    "L": "1.234568",
    "p": "<411>",
}
NAMED = {"{content-type}i": "a/b", "{User-Agent}i": "curl", "{X-CACHE}o": "hit", "{V}e": "7", "{nope}i": "-"}


def test_every_atom_in_both_spellings(zone):
    assert GOLDEN.keys() == {atom for atom in ATOMS if len(atom) == 1}
    for atom, expected in (GOLDEN | NAMED).items():
        assert compile_access_format(f"%({atom})s|%{atom}|%%")(entry()) == f"{expected}|{expected}|%"
    assert compile_access_format("%>s 100%%")(entry()) == "200 100%"
    assert compile_access_format("%(request_id)s")(entry(environ={"prefork.request_id": "f-1"})) == "f-1"


def test_documentation_has_every_atom():
    page = (Path(__file__).parents[2] / "docs" / "logging.md").read_text()
    for atom, (_, meaning) in ATOMS.items():
        assert f"| `%({atom})s` | {meaning} |" in page
    for key in JSON_KEYS:
        assert f"`{key}`" in page


def test_combined_and_what_is_missing(zone):
    line = compile_access_format("combined")
    assert line(entry()) == (
        '192.0.2.7 - ann [24/Nov/2026:16:32:03 +0530] "GET /cart?id=1&token=t HTTP/1.1" 200 512 '
        '"http://x/?token=t" "curl"'
    )
    refused = entry(
        remote_addr="", remote_user="", method="", target="", protocol="", status=0, sent_bytes=0, environ={}
    )
    assert line(refused) == '- - - [24/Nov/2026:16:32:03 +0530] "-" - - "-" "-"'


def test_no_request_can_forge_a_line():
    nasty = 'x" 200 \\\n\r\t\x00\x7f\x85é\u2028\ud800'
    escaped = r"x\" 200 \\\n\r\t\x00\x7f\x85\xe9\u2028\ud800"
    agent = entry(environ={"HTTP_USER_AGENT": nasty})
    assert compile_access_format('"%a"\té')(agent) == f'"{escaped}"\té'
    assert compile_access_format('%a"')(entry(environ={"HTTP_USER_AGENT": 'a"'})) == r'a\""'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%h %(z)s", "unknown atom '%(z)s' at character 4"),
        ("%{x}y", "unknown atom '%{x}y' at character 1"),
        ("100%", "unknown atom '%' at character 4"),
        ("%({NAME}i", "unknown atom '%' at character 1"),
        ("%h\n", "an access format is one line"),
    ],
)
def test_mistakes_in_a_format(text, message):
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(").replace(")", r"\)")):
        compile_access_format(text)


class Written:
    """An access log to a file."""

    def __init__(self, path, **options):
        self._path = path
        log = Log(Destination.open(str(path))).bind("", slot="web.2", generation=3)
        self.access = AccessLog(Destination.open(str(path)), log, **options)

    def lines(self):
        self.access.flush()
        return self._path.read_text().splitlines()


@pytest.fixture
def written(tmp_path):
    return lambda **options: Written(tmp_path / "access.log", **options)


def test_json(written):
    made = written(format="json", fields={"env": "10%"}, rename={"status": "code", "slot": "worker"})
    made.access.record(entry(target='/"é\n?q', remote_user=""))
    (line,) = made.lines()
    record = json.loads(line)
    renamed = ["code" if key == "status" else key for key in JSON_KEYS]
    assert list(record) == [*renamed, "env", "worker", "generation"]
    assert record["time"] == "2026-11-24T11:02:03.250Z"
    assert (record["path"], record["query"], record["remote_user"]) == ('/"é\n', "q", None)
    assert (record["code"], record["duration_s"], record["env"]) == (200, 1.234568, "10%")


def test_redacted_queries(written):
    made = written(format='%r %q %f "%{Referer}i" %{QUERY_STRING}e', redact_query=["Token"])
    environ = {"HTTP_REFERER": "http://x/?to%6ben=SECRET", "QUERY_STRING": "token=SECRET"}
    made.access.record(entry(target="/?token=SECRET&x=1;TOKEN=SECRET", environ=environ))
    assert "SECRET" not in made.lines()[0]
    assert made.lines()[0].startswith("GET /?token=***&x=1;TOKEN=*** HTTP/1.1 token=***&x=1;TOKEN=*** http")


@pytest.mark.parametrize(
    ("options", "statuses"),
    [
        ({"when": "errors"}, [404, 500, 0]),
        ({"when": "slow", "slow_s": 2}, [500]),
        ({"when": "slow", "slow_s": 0}, []),
        ({"skip": ["/cart/"]}, [200, 404, 500, 0]),
        ({"skip": ["/cart"]}, []),
    ],
)
def test_what_is_left_out(written, options, statuses):
    made = written(format="%B", **options)
    for status, seconds in ((200, 1), (404, 1), (500, 2), (0, 1)):
        made.access.record(entry(status=status, sent_bytes=status, elapsed_ns=seconds * 10**9))
    assert made.lines() == [str(status) for status in statuses]


def test_slow_is_what_the_pool_says(written):
    made = written(format="%T", when="slow", slow_s=2)
    made.access.record(entry())
    made.access = made.access.bind(Log(Destination.open("off")), slow_s=1)
    made.access.record(entry())
    assert made.lines() == ["1"]


def test_path_patterns():
    matches = path_matcher(["/static", "/api/", "*.png", "/v?/x"])
    assert all(map(matches, ["/static", "/static/a/b", "/api/", "/api/x", "/a/b.png", "/v2/x"]))
    assert not any(map(matches, ["/statics", "/api", "/png", "/v22/x", "/v2/x/y", "/"]))


def test_lines_wait_for_a_flush_but_not_for_ever_and_not_in_a_child(tmp_path, written):
    made = written(format="%s")
    path = tmp_path / "access.log"
    made.access.record(entry())
    pid = os.fork()
    if pid == 0:
        made.access.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert path.read_text() == ""
    for _ in range(BUFFERED_LINES - 1):
        made.access.record(entry())
    assert path.read_text() == "200\n" * BUFFERED_LINES


def test_a_broken_environ_costs_its_line_only(written):
    class Broken:
        def __str__(self):
            raise RuntimeError

    made = written(format="%s %{x}e")
    made.access.record(entry(environ={"x": Broken()}))
    made.access.record(entry(environ={}))
    first, second = made.lines()
    assert "no access line for a request: RuntimeError()" in first
    assert second == "200 -"
