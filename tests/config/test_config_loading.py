"""What a good config becomes: values, layers, pools, the environment's defaults, ways to print it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import jsonschema as jsonschema_package
import pytest

from prefork.config import (
    Config,
    FdAddress,
    Listen,
    Override,
    SystemdAddress,
    TcpAddress,
    Timeouts,
    UnixAddress,
    load,
    needs_restart,
    units,
)
from prefork.config import yaml as prefork_yaml
from prefork.config.admin_pool import admin_pool
from prefork.config.effective import render
from prefork.config.jsonschema import jsonschema
from prefork.config.nodes import Items, Report, Scalar
from prefork.config.reference import outputs
from prefork.errors import UsageError

ROOT = Path(__file__).parents[2]
ENVIRON = {"PORT_NUMBER": "9000", "EMPTY": "", "YES": "true"}

VALUES: dict[str, Any] = {
    "workers: 4": 4,
    "workers: auto": "auto",
    "workers: null": "auto",
    "workers: ${PORT_NUMBERS:-7}": 7,
    "threads: 0x10": 16,
    "threads: 010": 10,
    "preload: False": False,
    'preload: "${YES}"': True,
    'umask: "022"': 0o22,
    'umask: "0022"': 0o22,
    "user: 1000": "1000",
    "chdir: ${HOME:-/srv}/app": "/srv/app",
    "root_path: ${EMPTY}": "",
    "pythonpath: src": ("src",),
    "pythonpath: [a, b]": ("a", "b"),
    "env: {A: 1, B: true, C: '', D: null, E: 0660, F: '$$x $y $${z}'}": {
        "A": "1",
        "B": "true",
        "C": "",
        "E": "0660",
        "F": "$x $y ${z}",
    },
    "hooks: {after_fork: a:b, worker_exit: [c:d, e.f:g.h]}": {
        "after_fork": ("a:b",),
        "worker_exit": ("c:d", "e.f:g.h"),
    },
    "server_header: off": None,
    "timeouts.request: {request: 0}": 0.0,
    "timeouts.boot: {boot: 1.5m}": 90.0,
    "timeouts.keep_alive: {keep_alive: 5}": 5.0,
    "timeouts.slow: {slow: 250ms}": 0.25,
    "timeouts.slow: {request: 3s}": 1.5,
    "timeouts.slow: {request: 0}": 5.0,
    "limits.body: {body: 1.5GiB}": 1536 << 20,
    "limits.head: {head: 4096}": 4096,
    "limits.request_line: {head: 4096}": 4096,
    "reload.batch: {batch: 10%}": 0.1,
    "reload.batch: {batch: 2}": 2,
    "listen: 8000": (Listen("0.0.0.0:8000"),),
    "listen: fd:3": (Listen("fd:3"),),
    "listen: [':80', {address: '[::1]:81', backlog: 5}]": (
        Listen("0.0.0.0:80"),
        Listen("[::1]:81", backlog=5),
    ),
    "listen: unix:/run/x.sock": (Listen("unix:/run/x.sock", mode=0o660),),
    "listen: {address: unix:x, mode: '0600', group: www}": (Listen("unix:x", mode=0o600, group="www"),),
}


def config_of(text: str, environ: dict[str, str] = ENVIRON, *overrides: Override) -> Config:
    """Return the config of a file with this text."""
    Path("app.yaml").write_text(text)
    return load(["app.yaml"], overrides, environ).config


@pytest.fixture(autouse=True)
def _in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("text", "expected"), VALUES.items(), ids=VALUES)
def test_value(text: str, expected: Any) -> None:
    path, _, value = text.partition(": ")
    (pool,) = config_of(f"app: shop:app\n{path.partition('.')[0]}: {value}\n").pools
    got = attrgetter(path)(pool)
    assert got == expected
    assert type(got) is type(expected) or isinstance(expected, dict)


def test_defaults() -> None:
    config = config_of("app: shop.wsgi:application")
    (pool,) = config.pools
    assert (config.name, pool.name, config.files) == ("shop", "shop", ("app.yaml",))
    assert pool.listen == (Listen("127.0.0.1:8000"),)
    assert pool.timeouts == Timeouts() == Timeouts(120, 60, 5, 25, 0, 75, 10, 30, 30)
    assert (config.log.to, config.log.access, config.log.level) == ("stderr", "stdout", "info")


@pytest.mark.parametrize(
    ("app", "name"),
    [
        ("shop", "shop"),
        ("shop.web.wsgi:app.inner", "shop"),
        ("shop:create('prod', debug=False)", "shop"),
        ("site/wsgi.py:app", "wsgi"),
        ("/srv/my.site.py", "my-site"),
    ],
)
def test_name_follows_from_the_app(app: str, name: str) -> None:
    assert config_of(f'app: "{app}"').name == name


def test_environment_gives_defaults_only() -> None:
    environ = {"PORT": "5000", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    (pool,) = config_of("app: a:b", environ).pools
    assert (pool.listen, pool.timeouts.shutdown_delay) == ((Listen("0.0.0.0:5000"),), 5.0)
    (pool,) = config_of("app: a:b\ntimeouts: {graceful: 4s, shutdown_delay: auto}", environ).pools
    assert pool.timeouts.shutdown_delay == 2.0
    (pool,) = config_of("app: a:b\nlisten: 80\ntimeouts: {shutdown_delay: 0}", environ).pools
    assert (pool.listen, pool.timeouts.shutdown_delay) == ((Listen("0.0.0.0:80"),), 0.0)


def test_later_layers_win() -> None:
    Path("base.yaml").write_text(
        "app: a:b\nworkers: 2\ntimeouts: {slow: 1s, head: 3s}\npythonpath: [a, b]\nuser: x"
    )
    Path("prod.yaml").write_text("workers: 8\ntimeouts: {slow: 2s}\npythonpath: [c]\nuser: null\n")
    overrides = [
        Override("threads", "4", "-t"),
        Override.from_set("timeouts.slow=3s"),
        Override.from_set("log={level: debug}"),
        Override.from_set("env.X=a=b"),
    ]
    loaded = load(["base.yaml", "prod.yaml"], overrides, {})
    (pool,) = loaded.config.pools
    assert (pool.workers, pool.threads, pool.pythonpath, pool.user) == (8, 4, ("c",), None)
    assert (pool.timeouts.slow, pool.timeouts.head, pool.env["X"]) == (3.0, 3.0, "a=b")
    assert loaded.config.log.level == "debug"
    told = {
        path: str(loaded.origins[path]) for path in ("workers", "timeouts.slow", "timeouts.head", "threads")
    }
    assert told == {
        "workers": "prod.yaml:1:10",
        "timeouts.slow": "--set",
        "timeouts.head": "base.yaml:3:28",
        "threads": "-t",
    }
    assert "user" not in loaded.origins


@pytest.mark.parametrize("argument", ["workers", "=3", "a..b=1"])
def test_set_without_a_key_or_value(argument: str) -> None:
    with pytest.raises(UsageError, match=r"--set: expected key\.path=VALUE"):
        Override.from_set(argument)


def test_pools_inherit() -> None:
    config = config_of("""
threads: 4
timeouts: {request: 10s, head: 3s}
pools:
  web: {app: shop:app, listen: 1}
  api: {app: shop.api:app, listen: 2, threads: null, timeouts: {request: 20s}}
""")
    web, api = config.pools
    assert (config.name, web.name, api.name) == ("web", "web", "api")
    assert (web.threads, api.threads) == (4, 1)
    assert (web.timeouts.request, api.timeouts.request, api.timeouts.head) == (10.0, 20.0, 3.0)


@pytest.mark.parametrize(
    ("text", "normal", "parsed"),
    [
        ("8000", "0.0.0.0:8000", TcpAddress("0.0.0.0", 8000)),
        (":0", "0.0.0.0:0", TcpAddress("0.0.0.0", 0)),
        ("localhost:80", "localhost:80", TcpAddress("localhost", 80)),
        ("[0::1]:80", "[::1]:80", TcpAddress("::1", 80)),
        ("unix:/run/a b.sock", "unix:/run/a b.sock", UnixAddress("/run/a b.sock")),
        ("fd:7", "fd:7", FdAddress(7)),
        ("systemd", "systemd", SystemdAddress()),
        ("systemd:web", "systemd:web", SystemdAddress("web")),
    ],
)
def test_address(text: str, normal: str, parsed: object) -> None:
    (listen,) = config_of(f'app: a:b\nlisten: "{text}"').pools[0].listen
    assert (listen.address, listen.parsed) == (normal, parsed)


@pytest.mark.parametrize(
    ("write", "read", "values"),
    [
        (
            units.format_duration,
            units.parse_duration,
            [0.05, 0.25, 1, 1.5, 75, 60, 300, 3600, 90061.5, 86400],
        ),
        (units.format_size, units.parse_size, [0, 1, 1000, 1024, 1536, 1 << 20, 100 << 20, 3 << 40]),
    ],
)
def test_units_are_read_as_written(
    write: Callable[[Any], str], read: Callable[[str], Any], values: list[float]
) -> None:
    assert [read(write(value)) for value in values] == values


@pytest.mark.parametrize(
    ("text", "value"),
    {
        "off": "off", "yes": "yes", "True": True, "FALSE": False, "tRUE": "tRUE", "~": None, "": None,
        "12": 12, "-3": -3, "0660": 660,
        "0o17": 15, "0x1F": 31, "1_000": "1_000", "12:30": "12:30", "1e3": 1000.0,
        ".5": 0.5, "1.": 1.0, "2001-01-01": "2001-01-01", ".inf": ".inf", "'12'": "12", "\"true\"": "true",
    }.items(),
)  # fmt: skip
def test_core_schema(text: str, value: object) -> None:
    root = prefork_yaml.parse(f"- {text}", "x", Report())
    assert isinstance(root, Items)
    (node,) = root.nodes
    assert isinstance(node, Scalar)
    assert (node.value, type(node.value)) == (value, type(value))


def test_digest_follows_the_values_and_not_the_text() -> None:
    digests = [
        config_of(text).digest
        for text in (
            "app: a:b",
            "# x\napp: 'a:b'\nthreads: 1",
            "app: a:b\nthreads: 2",
            "app: a:b\nlog: {level: debug}",
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_what_a_reload_cannot_apply() -> None:
    old = config_of("app: a:b\nname: x\nworkers: 1")
    new = config_of("app: a:b\nname: y\nworkers: 2\nlog: {to: stdout, level: info}\npidfile: p")
    assert needs_restart(old, new) == ("name", "pidfile", "log.to")
    assert needs_restart(old, old) == ()


def test_the_admin_process_has_the_servers_user_and_a_token_that_is_a_secret() -> None:
    text = "admin: {token: hunter2hunter2, listen: unix:/run/a.sock}\npools:\n  web: {app: a:b, listen: 1, user: www}\n"
    Path("app.yaml").write_text(text)
    loaded = load(["app.yaml"], environ={})
    admin = loaded.config.admin
    assert admin is not None
    assert (admin.user, admin.listen[0].mode, admin.open) == ("www", 0o660, ("healthz", "readyz", "metrics"))
    assert "hunter2" not in render(loaded)
    assert "hunter2" in render(loaded, show_secrets=True)
    shared = config_of(f"user: all\n{text}").admin
    assert shared is not None
    assert shared.user == "all"
    assert config_of("app: a:b").admin is None


def test_clients_of_the_admin_process_that_stall_are_gone_before_a_health_check_gives_up() -> None:
    admin = config_of("app: a:b\nadmin: {}").admin
    assert admin is not None
    timeouts = admin_pool(admin).timeouts
    health_check_s = min(
        int(found)
        for found in re.findall(r"timeoutSeconds: (\d+)", (ROOT / "docs/monitoring.md").read_text())
    )
    assert 0 < max(timeouts.head, timeouts.body, timeouts.send) < health_check_s


def test_effective_config_names_origins_and_masks_secrets() -> None:
    Path("password").write_text("hunter2\n")
    Path("app.yaml").write_text("""\
app: shop:app
umask: "027"
env:
  DB: postgres://shop:hunter2@db/shop
  DB_PASSWORD: hunter2
  OTHER: "x-${file:password}"
  KEYBOARD: de
""")
    loaded = load(["app.yaml"], [Override("workers", "3", "-w")], {"PORT": "5000"})
    lines = render(loaded).splitlines()
    for line in (
        "app: shop:app  # from app.yaml:1",
        "name: shop  # from app",
        "workers: 3  # from -w",
        "listen: [{address: 0.0.0.0:5000, backlog: 2048, proxy_protocol: false}]  # from PORT",
        'umask: "0027"  # from app.yaml:2',
        '  DB: "postgres://shop:***@db/shop"  # from app.yaml:4',
        '  DB_PASSWORD: "***"  # from app.yaml:5',
        '  OTHER: "***"  # from app.yaml:6',
        "  KEYBOARD: de  # from app.yaml:7",
        "threads: 1",
        "  request: 60s",
    ):
        assert line in lines
    assert "hunter2" not in "\n".join(lines)
    assert "hunter2" in render(loaded, show_secrets=True)


RICH = """
name: main
pidfile: /run/x.pid
log: {access_format: '%(h)s "%(r)s" # ${HOME:-x} $$', fields: {dc: "1", "a b": "no"}, rename: {a: b}}
env: {A: "true", B: "1", C: "a: b", D: "", E: "$${X}", F: "-x", G: "é\\n", H: "~", $$I: "\\x7f\\u2028"}
server_header: off
pools:
  web: {app: "shop:create('a', 1)", listen: [1, {address: "unix:/x y", mode: "0600"}], user: "1000"}
  api: {app: b.py, listen: "[::]:2", workers: 3, preload: false, hooks: {after_fork: [a:b, c:d]}}
"""


@pytest.mark.parametrize("text", ["app: a:b", RICH, (ROOT / "config/example.yaml").read_text()])
def test_effective_config_loads_to_the_same(text: str) -> None:
    Path("app.yaml").write_text(text)
    loaded = load(["app.yaml"], environ={})
    Path("effective.yaml").write_text(render(loaded, show_secrets=True))
    again = load(["effective.yaml"], environ={}).config
    assert again.pools == loaded.config.pools
    assert again.digest == loaded.config.digest


def test_json_schema_agrees_with_the_loader() -> None:
    schema = jsonschema()
    validator = jsonschema_package.Draft7Validator(schema)
    validator.check_schema(schema)
    good = [
        {"app": "a:b", "listen": 8000, "workers": "${N}", "timeouts": {"slow": "1s", "request": None}},
        {"app": "a:b", "listen": ["1", {"address": "unix:x", "mode": "0600"}], "env": {"A": 1}},
        {"pools": {"web": {"app": "a:b", "threads": "$${x}"}}, "log": {"access": "off"}},
    ]
    bad = [
        {"workrs": 1},
        {"workers": 0},
        {"timeouts": {"slow": "1 s"}},
        {"limits": {"body": "1MB"}},
        {"listen": {"address": 1, "mode": 660}},
        {"pools": {"admin": {}}},
        {"pools": {"web": {"pidfile": "x"}}},
        {"log": {"to": "stdot"}},
    ]
    assert [config for config in good if not validator.is_valid(config)] == []
    assert [config for config in bad if validator.is_valid(config)] == []


def test_generated_files_are_fresh() -> None:
    stale = [path for path, text in outputs().items() if (ROOT / path).read_text() != text]
    assert stale == [], "run: python -m prefork.config.reference"


def test_example_is_small_and_names_the_schema() -> None:
    lines = (ROOT / "config/example.yaml").read_text().splitlines()
    assert len(lines) < 60
    schema = ROOT / "config" / lines[0].removeprefix("# yaml-language-server: $schema=")
    assert json.loads(schema.read_text())["title"] == "prefork"
    config = load([str(ROOT / "config/example.yaml")], environ={}).config
    assert (config.name, config.pools[0].pythonpath) == ("shop", ("examples",))
