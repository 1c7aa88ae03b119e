"""The command line with the real command: what serves, what is refused, and where values come from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
import yaml
from harness import PATIENCE_S, Server, title, wait_for

import prefork

EXAMPLE = Path(__file__).parents[2] / "config" / "example.yaml"

APP = """
import json, os

def app(environ, start_response):
    start_response("200 OK", [])
    told = {name: value for name, value in os.environ.items() if name.startswith("SHOP_")}
    return [json.dumps({**told, "multithread": environ["wsgi.multithread"]}).encode()]
"""


def command(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "prefork", *arguments],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_the_command_line_of_gunicorn_serves(server: Server) -> None:
    server.write("myapp.py", APP)
    line = (
        "myapp:app -b 127.0.0.1:0 -b unix:shop.sock -w 2 --threads 2 -t 30 --graceful-timeout 5 --keep-alive 3 "
        "--log-level debug -e SHOP_A=1 -e SHOP_B=2 -n shop -p shop.pid --preload -k gthread --backlog 64 "
        "--worker-tmp-dir /dev/shm --access-logfile access.log --access-logformat"
    )
    server.start(*line.split(), "%(m)s %(U)s %(s)s")
    server.wait_for_log(r"serving on 127\.0\.0\.1:\d+, unix:shop\.sock")
    assert server.wait_for_workers(2, r"shop\.")
    assert title(server.pid) == "prefork: master shop (command line)"
    assert (server.folder / "shop.pid").read_text() == f"{server.pid}\n"
    assert json.loads(server.get("/cart")[1]) == {"SHOP_A": "1", "SHOP_B": "2", "multithread": True}
    assert "prefork: note: -k gthread has no effect" in server.log
    assert "prefork: note: --worker-tmp-dir has no effect" in server.log
    assert server.stop() == 0
    assert (server.folder / "access.log").read_text() == "GET /cart 200\n"
    assert not (server.folder / "shop.pid").exists()


def test_later_sources_win_also_after_a_reload(server: Server) -> None:
    every = "{SHOP_A: base, SHOP_B: base, SHOP_C: base, SHOP_D: base}"
    server.write("base.yaml", f"app: myapp:app\nlisten: 127.0.0.1:0\nworkers: 1\nenv: {every}")
    server.write("prod.yaml", "env: {SHOP_B: prod, SHOP_C: prod, SHOP_D: prod}")
    server.write("myapp.py", APP)
    server.start(
        *["run", "-c", "base.yaml", "-c", "prod.yaml", "--set", "env.SHOP_D=line"],
        env={
            "PREFORK_CONFIG": "not-read.yaml",
            "PREFORK_CMD_ARGS": "--set env.SHOP_C=args --set env.SHOP_D=args --threads 2",
            # What Kubernetes sets for a service that is called prefork.
            "PREFORK_PORT": "tcp://10.0.0.1:80",
            "PREFORK_SERVICE_HOST": "10.0.0.1",
            "PREFORK_WORKERS": "7",
        },
    )
    server.wait_for_log("serving on ")
    assert len(server.workers()) == 1
    told = {"SHOP_A": "base", "SHOP_B": "prod", "SHOP_C": "args", "SHOP_D": "line", "multithread": True}
    assert json.loads(server.get()[1]) == told
    server.write("prod.yaml", "env: {SHOP_A: new, SHOP_D: new}")
    assert server.reload() == "reloaded"
    wait_for(lambda: len(server.workers()) == 1, "the old worker to leave")
    assert json.loads(server.get()[1]) == told | {"SHOP_A": "new", "SHOP_B": "base"}
    assert server.stop() == 0


@pytest.mark.measured
def test_check_tells_origins_and_masks_secrets(tmp_path: Path) -> None:
    (tmp_path / "myapp.py").write_text(APP)
    (tmp_path / "key").write_text("from-a-file\n")
    (tmp_path / "base.yaml").write_text(
        "app: myapp:app\nenv:\n  DB_PASSWORD: ${SECRET:-hunter2}\n  SHOP_URL: pg://shop:hunter2@db/shop\n"
        "  SHOP_DATA: ${file:key}\n  SHOP_NAME: plain\n"
    )
    (tmp_path / "prod.yaml").write_text("workers: 3\n")
    config = {"PREFORK_CONFIG": "base.yaml:prod.yaml", "PREFORK_CMD_ARGS": "--threads 2"}
    done = command(tmp_path, "check", "--set", "timeouts.request=5m", **config)
    assert done.returncode == 0, done.stderr
    for line in (
        "app: myapp:app  # from base.yaml:1",
        '  DB_PASSWORD: "***"  # from base.yaml:3',
        '  SHOP_URL: "pg://shop:***@db/shop"  # from base.yaml:4',
        '  SHOP_DATA: "***"  # from base.yaml:5',
        "  SHOP_NAME: plain  # from base.yaml:6",
        "workers: 3  # from prod.yaml:1",
        "threads: 2  # from PREFORK_CMD_ARGS --threads",
        "  request: 5m  # from --set",
        "  keep_alive: 75s",
    ):
        assert line in done.stdout.splitlines(), (line, done.stdout)
    for secret in ("hunter2", "from-a-file"):
        assert secret not in done.stdout + done.stderr
    # What was printed is a config again.
    (tmp_path / "again.yaml").write_text(done.stdout)
    assert command(tmp_path, "check", "-c", "again.yaml").returncode == 0


@pytest.mark.measured
@pytest.mark.parametrize(
    ("app", "told"),
    [
        ("raise RuntimeError('no database')", "RuntimeError: no database"),
        ("import threading; threading.Event().wait()", "did not load within timeouts.boot (1 s)"),
        ("import os; os._exit(0)", "ended the process that loaded it (exit status 0)"),
        ("def application(environ, start_response): pass", 'no attribute "app"; did you mean "application"?'),
    ],
)
def test_check_of_an_application_that_does_not_load(tmp_path: Path, app: str, told: str) -> None:
    (tmp_path / "myapp.py").write_text(app)
    done = command(tmp_path, "check", "myapp:app", "--set", "timeouts.boot=1s")
    assert done.returncode == 3
    assert told in done.stderr


def test_schema_is_one_and_accepts_the_example(tmp_path: Path) -> None:
    done = command(tmp_path, "schema")
    schema = json.loads(done.stdout)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    assert not list(validator.iter_errors(yaml.safe_load(EXAMPLE.read_text())))
    assert list(validator.iter_errors({"app": "a:b", "wokers": 2}))
    assert command(EXAMPLE.parents[1], "check", "-c", "config/example.yaml").returncode == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-k gevent myapp:app", "--worker-class gevent: prefork has one kind of worker"),
        ("-D myapp:app", "--daemon: prefork stays in the foreground; let systemd or a container run it"),
        ("-c gunicorn.conf.py", "-c gunicorn.conf.py: prefork reads YAML, not Python"),
        ("--max-request 5 myapp:app", 'unknown option --max-request; did you mean "--max-requests"?'),
        ("chekc", '"chekc" is neither a command nor a module; did you mean "check"?'),
        ("", "nothing to serve: give -c FILE or an application"),
    ],
)
def test_refused_with_advice(tmp_path: Path, line: str, told: str) -> None:
    done = command(tmp_path, *line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"prefork: {told}")
    assert len(done.stderr.splitlines()) <= 2


def test_configs_that_are_none_are_one_line_each(tmp_path: Path) -> None:
    names = "abcdefghi"
    levels = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise(names)]
    (tmp_path / "bomb.yaml").write_text("\n".join(["a: &a [x, x, x, x, x, x, x, x, x]", *levels]))
    (tmp_path / "nonsense.yaml").write_bytes(os.urandom(10_000_000))
    (tmp_path / "list.yaml").write_text("- app: myapp:app\n")
    (tmp_path / "flow.yaml").write_text("app: myapp:app\nenv: {KEY: ${SHOP_KEY:?the key of the shop}}\n")
    os.mkfifo(tmp_path / "fifo.yaml")
    told = {
        "bomb.yaml": "bomb.yaml:5:12: expected at most 20000 values",
        "nonsense.yaml": "nonsense.yaml: expected a config file of at most 256KiB",
        "list.yaml": "list.yaml:1:1: expected a mapping such as `app: module:attribute`, got a list",
        "flow.yaml": "flow.yaml:2:12: expected a value, got an unquoted ${SHOP_KEY:?the key of the shop}",
        "fifo.yaml": "fifo.yaml: expected a regular file",
        ".": ".: expected a config file, got a directory",
    }
    for name, line in told.items():
        done = command(tmp_path, "-c", name)
        assert (done.returncode, done.stdout) == (2, ""), name
        assert done.stderr.startswith(line), done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_version_help_and_the_installed_script(tmp_path: Path) -> None:
    assert command(tmp_path, "--version").stdout == f"prefork {prefork.__version__}\n"
    script = Path(sys.executable).with_name("prefork")
    if not script.exists():
        pytest.skip("prefork is not installed beside this Python")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    for said in ("prefork -c app.yaml", "PREFORK_CONFIG", "Exit status: 0 stopped as asked", "--bind"):
        assert said in done.stdout
