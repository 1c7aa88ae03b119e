"""Behind real proxies: HAProxy with the PROXY protocol and with HTTP, nginx over a unix socket; health checks."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S, Server, wait_for

CLIENT = "127.0.0.9"
"""Where clients come from, so that they are not the proxy's address."""

APP = """
import json

def app(environ, start_response):
    shown = {key: value for key, value in environ.items() if type(value) is str}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]
"""
CONFIG = """
app: myapp:app
workers: 1
listen:
  - 127.0.0.1:0
  - {address: "unix:plain.sock", mode: "0666"}
  - {address: "unix:proxied.sock", mode: "0666", proxy_protocol: true}
proxy: {trust: [127.0.0.1, unix], use: [for, proto, host, port, prefix], allow_names: [X_Role]}
health: {live: /live, ready: /ready}
timeouts: {shutdown_delay: DELAY, graceful: 20s}
"""
HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 10s
    timeout client 30s
    timeout server 30s
listen v1
    bind fd@${V1}
    bind unix@FOLDER/v1.sock
    server prefork unix@FOLDER/proxied.sock send-proxy
listen v2
    bind fd@${V2}
    bind unix@FOLDER/v2.sock
    option httpchk GET /ready
    server prefork unix@FOLDER/proxied.sock send-proxy-v2 check check-send-proxy inter 100ms rise 1 fall 1
listen http
    mode http
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    bind fd@${HTTP}
    server prefork 127.0.0.1:PORT
"""
NGINX = """
daemon off;
master_process off;
pid FOLDER/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path FOLDER;
    proxy_temp_path FOLDER;
    fastcgi_temp_path FOLDER;
    uwsgi_temp_path FOLDER;
    scgi_temp_path FOLDER;
    server {
        listen 127.0.0.1:PORT;
        location /shop/ {
            proxy_pass http://unix:FOLDER/plain.sock:/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Host shop.example;
            proxy_set_header X-Forwarded-Port 8443;
            proxy_set_header X-Forwarded-Prefix /shop;
            proxy_set_header X-Request-ID $request_id;
            proxy_set_header X_Role admin;
        }
    }
}
"""


@contextmanager
def proxy(*command: str, fds: tuple[int, ...] = (), log: Path, **env: str) -> Iterator[None]:
    """Run a proxy."""
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, pass_fds=fds, env={**os.environ, **env}, stdout=output, stderr=output
        )
    try:
        yield
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def ask(
    address: tuple[str, int] | str, target: str = "/", headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, dict[str, Any], int]:
    """Send a request on a connection of its own; return the response, the environ and the client's port."""
    connection = http.client.HTTPConnection("outside.example")
    if isinstance(address, str):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE_S)
        connection.sock.connect(address)
        port = 0
    else:
        connection.sock = socket.create_connection(address, PATIENCE_S, source_address=(CLIENT, 0))
        port = connection.sock.getsockname()[1]
    try:
        connection.request("GET", target, headers=headers or {})
        response = connection.getresponse()
        body = response.read()
        return response, json.loads(body) if body[:1] == b"{" else {}, port
    finally:
        connection.close()


def accepts(address: tuple[str, int]) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(address) == 0


@contextmanager
def listening(count: int) -> Iterator[list[socket.socket]]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.skipif(not shutil.which("haproxy"), reason="HAProxy is not installed: apt-get install haproxy")
def test_behind_haproxy(server: Server) -> None:
    server.serve(CONFIG.replace("DELAY", "15s"), APP)
    folder, log = server.folder, server.folder / "haproxy.log"
    config = HAPROXY.replace("FOLDER", str(folder)).replace("PORT", str(server.port))
    (folder / "haproxy.cfg").write_text(config)
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Ssl": "on", "X_Role": "admin"}
    with listening(3) as listeners:
        fds = {name: str(one.fileno()) for name, one in zip(("V1", "V2", "HTTP"), listeners, strict=True)}
        v1, v2, through_http = (listener.getsockname() for listener in listeners)
        numbers = tuple(map(int, fds.values()))
        with proxy("haproxy", "-db", "-f", str(folder / "haproxy.cfg"), fds=numbers, log=log, **fds):
            for address in (v1, v2):
                _, environ, port = ask(address, headers=forged)
                assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (CLIENT, str(port))
                assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", str(address[1]))
                assert not environ.keys() & {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_SSL", "HTTP_X_ROLE"}
            for name in ("v1.sock", "v2.sock"):  # UNKNOWN and LOCAL
                assert ask(str(folder / name), headers=forged)[1]["REMOTE_ADDR"] == ""
            _, environ, _ = ask(through_http, headers=forged)
            assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == (CLIENT, "https")
            assert environ["HTTP_HOST"] == "outside.example"
            wait_for(lambda: server.log.count(f"\n{CLIENT} - - [") == 3, "the client in the access log")
            # HAProxy's health check sees the stop before anybody is turned away.
            server.send_signal(signal.SIGTERM)
            wait_for(lambda: "Server v2/prefork is DOWN" in log.read_text(), "the failed health check")
            assert ask(v1)[0].status == 200
    server.send_signal(signal.SIGINT)
    assert server.wait() == 0
    assert "proxy-header-refused" not in server.log


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed: apt-get install nginx-light")
def test_behind_nginx(server: Server) -> None:
    server.serve(CONFIG.replace("DELAY", "0"), APP)
    folder = server.folder
    with listening(1) as (listener,):
        address = listener.getsockname()
    config = NGINX.replace("FOLDER", str(folder)).replace("PORT", str(address[1]))
    (folder / "nginx.conf").write_text(config)
    arguments = ("-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf"))
    with proxy("nginx", *arguments, log=folder / "nginx.log"):
        wait_for(lambda: accepts(address), "nginx")
        forged = {"X-Forwarded-For": "6.6.6.6", "X-Role": "forged", "X-Request-ID": "forged"}
        _, environ, _ = ask(address, "/shop/cart?a=1", forged)
        expected = {
            "REMOTE_ADDR": CLIENT,
            "wsgi.url_scheme": "https",
            "HTTP_HOST": "shop.example:8443",
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "8443",
            "SCRIPT_NAME": "/shop",
            "PATH_INFO": "/cart",
            "HTTP_X_ROLE": "admin",
            "prefork.request_id": environ["HTTP_X_REQUEST_ID"],
        }
        assert {key: environ.get(key) for key in expected} == expected
        assert environ["prefork.request_id"] != "forged"
        # A client that contradicts the proxy fools nobody.
        assert ask(address, "/shop/", {"Forwarded": "for=6.6.6.6"})[0].status == 400
    assert server.stop() == 0


def test_a_service_reads_the_proxy_header_itself(server: Server) -> None:
    service = """
    from prefork.worker.server import Server

    class Service(Server):
        pass
    """
    server.configure(CONFIG.replace("DELAY", "0").replace(":app", ":Service"), service)
    server.start()
    assert server.wait() == 3
    assert "cannot use myapp:Service with proxy_protocol: only the web server speaks it" in server.log


def test_readiness_goes_first(server: Server) -> None:
    server.serve(CONFIG.replace("DELAY", "15s"), APP)
    address = ("127.0.0.1", server.port)
    assert [ask(address, target)[0].status for target in ("/live", "/ready")] == [200, 200]
    assert ask(address)[0].getheader("connection") is None
    server.reload()
    assert ask(address, "/ready")[0].status == 200  # a reload is no reason to be taken out of service
    server.send_signal(signal.SIGTERM)
    wait_for(lambda: ask(address, "/ready")[0].status == 503, "readiness off")
    assert ask(address, "/live")[0].status == 200
    assert ask(address)[0].getheader("connection") == "close"
    # A worker that boots now knows it, too.
    (worker,) = server.wait_for_workers(1)
    mark = server.mark()
    os.kill(worker, signal.SIGKILL)
    server.wait_for_log("ready after", mark)
    wait_for(lambda: ask(address, "/ready")[0].status == 503, "the new worker's answer")
    server.send_signal(signal.SIGINT)
    assert server.wait() == 0
    assert "/ready" not in server.log
