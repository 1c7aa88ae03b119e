"""Falcon, Bottle, Pyramid, and FastAPI through a2wsgi: the same application in each, through the real command."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from harness import Server
from test_e2e_frameworks import PNG, form_file, post
from wire_client import APPS, Client


@pytest.mark.parametrize(
    ("framework", "config"),
    [
        ("falcon", "threads: 1"),
        ("bottle", "threads: 4"),
        ("pyramid", "threads: 4"),
        # a2wsgi starts a thread when the application is made: that has to be in the worker.
        ("fastapi", "threads: 4\npreload: false"),
    ],
)
def test_framework(server: Server, framework: str, config: str) -> None:
    server.serve(
        f"app: frameworks:{framework}()\npythonpath: [{APPS}]\nworkers: 1\nlisten: 127.0.0.1:0\n{config}",
        app=None,
    )
    [worker] = server.wait_for_workers(1)
    with Client(("127.0.0.1", server.port)) as client:
        hello = client.get("/hello/you%20there?q=%C3%A9&x", "Cookie: b=1", "Cookie: a=2")
        seen = json.loads(hello.body)
        assert (seen["hello"], seen["q"], seen["cookie"]) == ("you there", "é", "2")
        assert seen["url"].startswith("http://test/hello/you")
        assert hello.headers["set-cookie"].startswith("seen=")
        assert client.get("/nowhere").status == 404
        sent = post(client, "/hello/you", "application/json", b'{"a": [1, "\xc3\xa9"]}')
        assert json.loads(sent.body) == {"sent": {"a": [1, "é"]}}
        kind, body = form_file("file", "large.bin", PNG * 20)
        sent = post(client, "/upload", kind.removeprefix("Content-Type: "), body)
        assert json.loads(sent.body) == {"name": "large.bin", "sha256": hashlib.sha256(PNG * 20).hexdigest()}
        stream = client.get("/stream")
        assert stream.headers["transfer-encoding"] == "chunked"
        assert stream.body == b"".join(f"{number:05}\n".encode() * 100 for number in range(100))
        head = client.get("/hello/you?q=", method="HEAD")
        assert head.body == b""
        assert client.get("/boom").status == 500
        assert json.loads(client.get("/hello/again?q=").body)["hello"] == "again"
    if framework != "fastapi":  # a2wsgi keeps the exception to itself
        server.wait_for_log("LookupError: no such teapot")
    assert server.workers() == [worker]
    assert server.stop() == 0
    assert not re.search("internal-error|access-log-failed|response-(short|long)", server.log)
