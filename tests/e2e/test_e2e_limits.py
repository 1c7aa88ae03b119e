"""Limits of the machine: open files, and a temp directory that cannot be written; told once, and served on."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Server

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
preload: {preload}
tmp_dir: {tmp_dir}
limits: {{connections: 2000, body_memory: 64KiB}}
"""
APP = """
import resource

def app(environ, start_response):
    size = len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d %d" % (size, resource.getrlimit(resource.RLIMIT_NOFILE)[0])]
"""


def post(server: Server, size: int) -> tuple[int, bytes]:
    connection = server.connect()
    connection.request("POST", "/", bytes(size))
    response = connection.getresponse()
    content = response.status, response.read()
    connection.close()
    return content


@pytest.mark.measured
@pytest.mark.parametrize("preload", ["auto", "false"])
def test_too_few_open_files_and_no_temp_directory(server: Server, preload: str) -> None:
    config = CONFIG.format(preload=preload, tmp_dir="/nonexistent")
    server.serve(config, APP, prefix=("sh", "-c", 'ulimit -Sn 256; ulimit -Hn 1000; exec "$@"', "sh"))
    assert "raised the limit of open files from 256 to 1000" in server.log
    assert (
        "limits.connections is 2000, which takes 2128 open files in a worker, and the hard limit is 1000"
        in server.log
    )
    assert server.log.count("cannot write a temporary file in /nonexistent: No such file") == 1
    assert post(server, 60_000) == (200, b"60000 1000")
    assert post(server, 300_000)[0] == 507
    assert server.log.count("cannot spool to a temporary file in /nonexistent") == 1
    assert post(server, 60_000)[0] == 200


def test_a_large_body_goes_through_the_temp_directory(server: Server, tmp_path: Path) -> None:
    server.serve(CONFIG.format(preload="auto", tmp_dir=tmp_path), APP)
    assert post(server, 3_000_000)[1].startswith(b"3000000 ")
    assert "tmp_dir" not in server.log
