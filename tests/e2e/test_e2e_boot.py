"""Starting: how a server that cannot start says so, and what the application finds when it does."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest
from harness import AS_NOBODY, HELLO, Server

CONFIG = """
app: {app}
listen: 127.0.0.1:0
workers: 2
"""
preloading = pytest.mark.parametrize("preload", ["auto", "false"])


def fail(server: Server, config: str, app: str | None = HELLO, prefix: tuple[str, ...] = ()) -> int:
    """Start a server that ends by itself; return its exit status. Nobody of it may be left."""
    server.configure(config, app)
    server.start(prefix=prefix)
    status = server.wait()
    assert server.family() == []
    assert "serving on" not in server.log
    return status


def last_lines(server: Server, after: str) -> list[str]:
    """Return the lines of the log from the one that contains ``after``."""
    lines = server.log.splitlines()
    first = next(index for index, line in enumerate(lines) if after in line)
    return lines[first:]


# Status 2: a mistake in the config


def test_mistakes_in_the_config_are_told_with_their_places(server: Server) -> None:
    assert fail(server, "app: myapp:app\nworkers: two\nlisten: 127.0.0.1:0\nthread: 2\n") == 2
    first, second = server.log.splitlines()
    assert first.startswith("app.yaml:2:10: workers: expected auto or an integer")
    assert second.startswith("app.yaml:4:1: thread: ")


def test_an_unknown_user_is_a_mistake_in_the_config(server: Server) -> None:
    assert fail(server, CONFIG.format(app="myapp:app") + "user: nosuchuser") == 2
    assert "there is no user 'nosuchuser'" in server.log.splitlines()[-1]


# Status 3: the application cannot be loaded, or its workers do not get ready


@preloading
def test_an_import_error_shows_the_applications_frames_and_none_of_ours(server: Server, preload: str) -> None:
    app = """
    def connect():
        raise ValueError("no database")

    connect()
    """
    assert fail(server, CONFIG.format(app="myapp:app") + f"preload: {preload}", app) == 3
    what, *traceback = last_lines(server, "cannot load myapp:app")[:7]
    assert re.search(r" error .*: cannot load myapp:app: importing it raised ValueError$", what)
    assert [line.strip() for line in traceback] == [
        "Traceback (most recent call last):",
        f'File "{server.folder}/myapp.py", line 5, in <module>',
        "connect()",
        f'File "{server.folder}/myapp.py", line 3, in connect',
        'raise ValueError("no database")',
        "ValueError: no database",
    ]


@preloading
def test_a_wrong_name_gets_a_suggestion(server: Server, preload: str) -> None:
    assert (
        fail(server, CONFIG.format(app="myapp:aplication") + f"preload: {preload}", "application = print")
        == 3
    )
    assert 'myapp has no attribute "aplication"; did you mean "application"?' in server.log


@pytest.mark.parametrize(
    ("more", "app", "reason"),
    [
        ("", "import os; os._exit(7)", "the mold died while it loaded the application: exit status 7"),
        ("", "import sys; sys.exit(7)", r"importing it called sys\.exit\(7\)"),
        ("preload: false", "import os; os._exit(7)", r"worker myapp\.\d did not get ready: exit status 7"),
        ("hooks: {after_fork: os.path:isfile}", HELLO, "the hook after_fork .* raised TypeError"),
        ("hooks: {after_fork: myapp:missing}", HELLO, "hook after_fork: .* no attribute"),
        ("chdir: nowhere", HELLO, "chdir: cannot enter nowhere: No such file or directory"),
        ("env_file: [nowhere]", HELLO, "env_file: cannot read nowhere: No such file or directory"),
    ],
    ids=["mold exits", "import exits", "worker exits", "hook raises", "no such hook", "chdir", "env_file"],
)
def test_a_boot_that_fails_is_told_with_the_reason(server: Server, more: str, app: str, reason: str) -> None:
    assert fail(server, CONFIG.format(app="myapp:app") + more, app) == 3
    assert re.search(f" error .*{reason}", server.log), server.log
    assert server.log.endswith("stopped with exit status 3\n")


@pytest.mark.measured
@preloading
def test_an_application_that_hangs_on_import_is_ended_and_its_stack_logged(
    server: Server, preload: str
) -> None:
    app = """
    import time

    def wait_for_broker():
        time.sleep(1000)

    wait_for_broker()
    """
    config = CONFIG.format(app="myapp:app") + f"preload: {preload}\ntimeouts: {{boot: 1s}}"
    assert fail(server, config, app) == 3
    assert "within timeouts.boot (1 s)" in server.log
    [stack, *_] = re.findall(r"\(most recent call first\):\n((?: +File .*\n)+)", server.log)
    assert [line.strip() for line in stack.splitlines()] == [
        f'File "{server.folder}/myapp.py", line 5 in wait_for_broker',
        f'File "{server.folder}/myapp.py", line 7 in <module>',
    ]


def test_a_boot_in_time_is_not_ended_by_the_boot_timeout(server: Server) -> None:
    """The timeout is off once workers are ready, so a quiet server outlives it."""
    server.serve(CONFIG.format(app="myapp:app") + "timeouts: {boot: 1s}")
    workers = server.wait_for_workers(2)
    server.get()
    assert server.workers() == workers


# Status 4: cannot listen


def fails_to_listen(server: Server, address: str, prefix: tuple[str, ...] = ()) -> str:
    """Return the only line besides the one that tells the version."""
    assert fail(server, f"app: myapp:app\nlisten: '{address}'\nworkers: 2\n", prefix=prefix) == 4
    _, line = server.log.splitlines()
    assert line.startswith(f"prefork: cannot listen on {address}: ")
    return line


@pytest.mark.measured
def test_an_address_in_use_is_told_with_who_has_it(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        line = fails_to_listen(server, f"127.0.0.1:{other.getsockname()[1]}")
    assert f"already in use by pid {os.getpid()} " in line


def test_a_foreign_address_is_told(server: Server) -> None:
    assert "no interface of this machine has the address 192.0.2.1" in fails_to_listen(
        server, "192.0.2.1:8000"
    )


def test_a_privileged_port_needs_privileges(public_server: Server) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("port 80 is free for all here")
    line = fails_to_listen(public_server, "127.0.0.1:80", AS_NOBODY)
    assert "ports below 1024 need root" in line


# What the application finds

FORMS = {
    "shop/__init__.py": "",
    "shop/wsgi.py": """
        from shop import state

        def application(environ, start_response):
            start_response("200 OK", [])
            return [state.greeting]

        class site:
            app = application

        def create(greeting, *, mark):
            state.greeting = (greeting + mark).encode()
            return application
        """,
    "shop/state.py": "greeting = b'plain'",
}


@pytest.mark.parametrize(
    ("app", "greeting"),
    [
        ("shop.wsgi:application", "plain"),
        ("shop.wsgi:site.app", "plain"),
        ("shop.wsgi", "plain"),
        ('\'shop.wsgi:create("made", mark="!")\'', "made!"),
        ("shop/wsgi.py:application", "plain"),
        ("./shop/wsgi.py", "plain"),
    ],
)
def test_every_form_of_app_serves(server: Server, app: str, greeting: str) -> None:
    (server.folder / "shop").mkdir()
    for name, text in FORMS.items():
        server.write(name, text)
    server.serve(CONFIG.format(app=app), None)
    assert server.get() == (200, greeting)
    assert server.stop() == 0


@pytest.mark.measured
def test_the_application_finds_the_surroundings_of_the_config(server: Server) -> None:
    """``env``, ``env_file``, ``chdir``, ``pythonpath`` and ``umask``, at its import and in a request."""
    for folder in ("site", "site/lib"):
        (server.folder / folder).mkdir()
    server.write("site/lib/helper.py", "name = 'helper'")
    server.write("secrets.env", "SHOP_KEY='from file'\nSHOP_MODE=file\n")
    server.write(
        "site/myapp.py",
        """
        import json, os
        import helper

        def surroundings():
            os.umask(umask := os.umask(0))
            names = [*(f"SHOP_{name}" for name in ("KEY", "MODE", "OUTER")), "LISTEN_FDS", "LISTEN_PID",
                     "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]
            return {"cwd": os.getcwd(), "umask": umask, "env": {n: os.environ[n] for n in names if n in os.environ}}

        at_import = surroundings()

        def app(environ, start_response):
            start_response("200 OK", [])
            return [json.dumps([at_import, surroundings()]).encode()]
        """,
    )
    config = """
        app: myapp:app
        listen: 127.0.0.1:0
        workers: 2
        chdir: site
        pythonpath: [lib]
        umask: "0027"
        env_file: [secrets.env]
        env: {SHOP_MODE: "${SHOP_OUTER}, changed"}
        """
    systemd = {
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDNAMES": "web",
        "NOTIFY_SOCKET": "@nobody-listens-here",
        "WATCHDOG_USEC": "60000000",
    }
    server.serve(config, None, env={"SHOP_OUTER": "outer", **systemd})
    expected = {
        "cwd": f"{server.folder}/site",
        "umask": 0o027,
        "env": {"SHOP_KEY": "from file", "SHOP_MODE": "outer, changed", "SHOP_OUTER": "outer"},
    }
    assert json.loads(server.get()[1]) == [expected, expected]


def test_workers_auto_shows_its_arithmetic(server: Server) -> None:
    server.serve("app: myapp:app\nlisten: 127.0.0.1:0\nlog: {format: json}\n")
    [line] = [line for line in server.log.splitlines() if '"pool-starting"' in line]
    told = json.loads(line)
    assert re.search(r"; workers: auto = (2 × )?[\d.]+ CPUs? \(.+\) = \d+", told["message"])
    assert told["workers"] >= 2
    server.wait_for_workers(told["workers"])


def test_web_concurrency_decides_for_auto(server: Server) -> None:
    server.serve("app: myapp:app\nlisten: 127.0.0.1:0\nworkers: auto\n", env={"WEB_CONCURRENCY": "3"})
    server.wait_for_workers(3)
    assert "workers: auto = 3 (WEB_CONCURRENCY)" in server.log
