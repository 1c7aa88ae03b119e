"""What each mistake in a config says: the whole text is compared, place and all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from prefork.config import Override, load
from prefork.errors import ConfigError, ExitStatus

ENVIRON = {"HOME": "/root", "EMPTY": "", "WORD": "two"}

VALUES = {
    "workers: two": '1:10: workers: expected auto or an integer from 1 to 1024, got "two"',
    "workers: 0": "1:10: workers: expected auto or an integer from 1 to 1024, got 0",
    "workers: 1.5": "1:10: workers: expected auto or an integer from 1 to 1024, got 1.5",
    "workers: true": "1:10: workers: expected auto or an integer from 1 to 1024, got true",
    "workers: '4'": '1:10: workers: expected auto or an integer from 1 to 1024, got "4"',
    "workers: [1]": "1:10: workers: expected auto or an integer from 1 to 1024, or a mapping with min, max and start, "
    "got a list",
    "workers: {min: 0, max: 4}": "1:16: workers.min: expected an integer from 1 to 1024, got 0",
    "workers: {min: 1}": "1:10: workers.max: missing: expected an integer from 1 to 1024",
    "workers: {min: 5, max: 4}": "1:24: workers.max: expected at least workers.min (5), got 4",
    "workers: {max: 4, start: 5}": "1:26: workers.start: expected an integer from workers.min (1) to workers.max (4), "
    "got 5",
    "workers: {max: 4, strt: 2}": '1:19: workers.strt: unknown key; did you mean "start"?',
    f"threads: {'9' * 5000}": f'1:10: threads: expected an integer from 1 to 256, got "{"9" * 60}…"',
    "workrs: 4": '1:1: workrs: unknown key; did you mean "workers"?',
    "preload: yes": '1:10: preload: expected auto, true or false, got "yes"',
    "umask: 022": '1:8: umask: expected an octal mode in quotes such as "0660", got 022; quote it: "022"',
    "umask: '9'": '1:8: umask: expected an octal mode in quotes such as "0660", got "9"',
    "name: 12": "1:7: name: expected a name of letters, digits, - and _ that starts with a letter, got 12",
    "name: admin": '1:7: name: expected a name other than "admin", which is reserved; choose another',
    "admin: {listen: 8000}\nlisten: 8000": "1:17: admin.listen: expected an address of its own, got 0.0.0.0:8000, "
    "but listen uses 0.0.0.0:8000 (app.yaml:2:9)",
    "admin: {listen: {address: 9180, mode: '0600'}}": "1:39: admin.listen.mode: expected mode for a unix socket only, "
    "got one beside 0.0.0.0:9180",
    "admin: {listen: {address: 9180, proxy_protocol: true}}": "1:49: admin.listen.proxy_protocol: expected false: whom "
    "a proxy speaks for does not count here, got true",
    "admin: {token: short}": "1:16: admin.token: expected a secret of 8 or more letters, digits and signs, without "
    "spaces, got a secret value",
    "admin: {token: ''}": "1:16: admin.token: expected a secret of 8 or more letters, digits and signs, without "
    "spaces, got a secret value",
    "admin: {open: [healtz]}": "1:16: admin.open[0]: expected healthz, readyz, metrics, status or page, "
    'got "healtz"; did you mean "healthz"?',
    "control: no": '1:10: control: expected auto, off or a path with a / in it, got "no"',
    "control: of": '1:10: control: expected auto, off or a path with a / in it, got "of"; did you mean "off"?',
    "chdir: 12": '1:8: chdir: expected a path, got 12; quote it: "12"',
    "env: [a]": "1:6: env: expected a mapping, got a list",
    "env: {A: [b]}": "1:10: env.A: expected text or a number, got a list",
    "env: {'A=B': c}": '1:7: env: expected a variable\'s name as key, got "A=B"',
    "timeouts: 5s": '1:11: timeouts: expected a mapping, got "5s"',
    "timeouts: {boot: 60 s}": "1:18: timeouts.boot: expected a duration such as 250ms, 30s or 5m, "
    'from 1s to 1d, got "60 s"',
    "timeouts: {request: 50ms}": "1:21: timeouts.request: expected 0 or a duration such as 250ms, 30s or 5m, "
    'from 100ms to 1d, got "50ms"',
    "proxy: {trust: [10.0.0.1/8]}": "1:17: proxy.trust[0]: expected an address, a network such as 10.0.0.0/8, or unix, "
    'got "10.0.0.1/8"; did you mean "10.0.0.0/8"?',
    "proxy: {trust: localhost}": "1:16: proxy.trust: expected an address, a network such as 10.0.0.0/8, or unix, "
    'got "localhost"',
    "proxy: {forwarded: forwarded, use: [for, prefix]}": "1:36: proxy.use: expected for, proto or host, "
    'got "prefix", which Forwarded cannot tell',
    "proxy: {allow_names: Transfer_Encoding}": "1:22: proxy.allow_names: expected the name of a header with an "
    'underscore in it, got "Transfer_Encoding"',
    "proxy: {allow_names: X-Role}": "1:22: proxy.allow_names: expected the name of a header with an underscore in it, "
    'got "X-Role"',
    "health: {live: /up, ready: /up}": '1:28: health.ready: expected another path than health.live, got "/up"',
    "health: {live: up}": '1:16: health.live: expected "" or a path that starts with /, got "up"',
    "timeouts: {overrides: [{path: /a}]}": "1:24: timeouts.overrides[0].request: missing: expected 0 or a "
    "duration such as 250ms, 30s or 5m, from 100ms to 1d",
    "timeouts: {overrides: {path: a, request: 1s}}": "1:30: timeouts.overrides.path: expected a path that starts "
    'with /, got "a"',
    "timeouts: {overrides: [{path: /a, request: 1s}, {path: /a, request: 2s}]}": "1:56: timeouts.overrides[1].path: "
    "expected a path of its own, got /a, which timeouts.overrides[0] has",
    "timeouts: {overrides: [{path: /a, request: 1s, slow: 1s}]}": "1:54: timeouts.overrides[0].slow: expected less "
    "than request (1s), got 1s",
    "limits: {head: 64KB}": "1:16: limits.head: expected a size such as 64KiB or 1MiB, from 512B to 1MiB, "
    'got "64KB"; did you mean "64KiB"?',
    "recycle: {jitter: 120%}": '1:19: recycle.jitter: expected a percentage from 0% to 100%, got "120%"',
    "recycle: {jitter: false}": "1:19: recycle.jitter: expected a percentage from 0% to 100%, got false",
    "reload: {batch: 120%}": "1:17: reload.batch: expected a percentage such as 25%, or a number of workers "
    'from 1, got "120%"',
    "metrics: {buckets: [1ms, 5ms, 5ms]}": "1:20: metrics.buckets: expected at most 24 rising durations such as 5ms "
    "or 0.005, got 3: 0.001, 0.005, 0.005",
    "metrics: {buckets: [1ms, soon]}": "1:26: metrics.buckets[1]: expected a duration such as 250ms, 30s or 5m, from "
    '0.1ms to 1d, got "soon"',
    "root_path: /a/": '1:12: root_path: expected "" or a path that starts with / and does not end with /, '
    'got "/a/"',
    "server_header: false": "1:16: server_header: expected off or one line of ASCII text, got false",
    "hooks: {after_frok: a:b}": '1:9: hooks.after_frok: unknown key; did you mean "after_fork"?',
    "hooks: {after_fork: [a:b, a.b]}": '1:27: hooks.after_fork[1]: expected module:callable, got "a.b"',
    "log: {level: warn}": "1:14: log.level: expected debug, info, warning, error or critical, "
    'got "warn"; did you mean "warning"?',
    "log: {to: stdot}": "1:11: log.to: expected stderr, stdout, off, journal or a path with a / in it, or syslog: and "
    'a path, host or host:port, got "stdot"; did you mean "stdout"?',
    "log: {to: 'syslog:a:b'}": "1:11: log.to: expected stderr, stdout, off, journal or a path with a / in it, or "
    'syslog: and a path, host or host:port, got "syslog:a:b"',
    "listen: []": "1:9: listen: expected at least 1 in the list, got none",
    "listen: [':1', '::1:80']": "1:16: listen[1]: expected an IPv6 address in brackets: [::1]:8000, "
    'got "::1:80"',
    "listen: fd:1": '1:9: listen: expected fd:N with N from 3 on, got "fd:1"',
    "listen: {address: 8000, mode: 0660}": "1:31: listen.mode: expected an octal mode in quotes such as "
    '"0660", got 0660; quote it: "0660"',
    "listen: {address: 8000, mode: '0660'}": "1:31: listen.mode: expected mode for a unix socket only, "
    "got one beside 0.0.0.0:8000",
    "listen: {backlog: 5}": "1:9: listen.address: missing: expected host:port, :port, port, [ipv6]:port, "
    "unix:PATH, fd:N, systemd or systemd:NAME",
    "listen: [8000, '127.0.0.1:8000']": "1:16: listen[1]: expected an address of its own, "
    "got 127.0.0.1:8000, but listen[0] uses 0.0.0.0:8000 (app.yaml:1:10)",
    "timeouts: {slow: 90s}": "1:18: timeouts.slow: expected less than timeouts.request (60s, the default), "
    "got 90s",
    "timeouts: {graceful: 3s, shutdown_delay: 3s}": "1:42: timeouts.shutdown_delay: expected less than "
    "timeouts.graceful (3s, app.yaml:1:22), got 3s",
    f"limits: {{body: {'9' * 400}KiB}}": "1:16: limits.body: expected a size such as 64KiB or 1MiB, "
    f'from 0B to 1TiB, got "{"9" * 60}…"',
    "limits: {request_line: 64KiB}": "1:24: limits.request_line: expected at most limits.head "
    "(32KiB, the default), got 64KiB",
    # References
    "threads: ${NOPE}": "1:10: threads: ${NOPE}: not set in the environment, and no default as in ${NOPE:-…}",
    "chdir: ${HOMEE}": "1:8: chdir: ${HOMEE}: not set in the environment, and no default as in ${HOMEE:-…}; "
    'did you mean "HOME"?',
    "user: ${EMPTY:?who runs it?}": "1:7: user: ${EMPTY}: who runs it?",
    "threads: ${WORD}": '1:10: threads: expected an integer from 1 to 256, got "two"',
    "threads: ${EMPTY}": '1:10: threads: expected an integer from 1 to 256, got ""',
    "user: ${A": "1:7: user: expected ${VAR}, ${VAR:-default}, ${VAR:?message} or ${file:/path}, "
    'got "${A"; $$ stands for a dollar sign',
    "user: ${file:/nope}": "1:7: user: ${file:/nope}: No such file or directory",
    "timeouts: {boot: ${T:-60s}}": "1:18: expected a value, got an unquoted ${T:-60s}, whose braces are YAML "
    'here; quote it: "${T:-60s}"',
    "listen: [${A}]": "1:10: expected a value, got an unquoted ${A}, whose braces are YAML "
    'here; quote it: "${A}"',
    # YAML
    "log:\n  level: info\n  level: debug": "3:3: log.level: expected each key once, got it again after line "
    "2",
    "log:\n  <<: {}": '2:3: expected a key, got the merge key "<<", which YAML 1.2 has not; '
    "write the keys out",
    "user: !!str 5": "1:7: expected a value without a tag, got !!str; quote a value to make it text",
    "user: !!python/name:os.system x": "1:7: expected a value without a tag, got !!python/name:os.system; "
    "quote a value to make it text",
    "user: *x": "1:7: expected an anchor &x that ends before this alias, got none",
    "env: &e {A: *e}": "1:13: expected an anchor &e that ends before this alias, got none",
    "user: {{ user }}": "1:8: expected a word as key, got a list or a mapping; quote text that "
    "begins with { or [",
    "user: x\n---\nuser: y": "2:1: expected one YAML document, got a second one",
    "user: a\x00b": "1:8: expected YAML text, got the unprintable character '\\x00'",
}


def mistakes_of(text: str | bytes, environ: dict[str, str] = ENVIRON) -> list[str]:
    """Return the lines of the error of a config file with this text."""
    Path("app.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(["app.yaml"], environ=environ)
    assert caught.value.status == ExitStatus.USAGE
    return str(caught.value).splitlines()


@pytest.fixture(autouse=True)
def _in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("text", "expected"), VALUES.items(), ids=lambda text: text[:40])
def test_one_mistake_is_one_line_with_its_place(text: str, expected: str) -> None:
    assert mistakes_of(f"{text}\napp: shop:app\n") == [f"app.yaml:{expected}"]


@pytest.mark.parametrize(
    "app",
    [
        "a b",
        "shop:",
        ":app",
        "shop:app.",
        "shop:f(x)",
        "shop:f(**k)",
        "shop:1",
        "lib/wsgi:app",
        "a:b:c",
        "",
    ],
)
def test_app_of_no_known_form(app: str) -> None:
    (line,) = mistakes_of(f'app: "{app}"')
    assert line.startswith(
        'app.yaml:1:6: app: expected module:attribute, module, "module:create(args)" or path'
    )


def test_a_secret_is_not_told() -> None:
    Path("secret").write_text("hunter2\n")
    assert mistakes_of("app: shop:app\nthreads: ${file:secret}\n") == [
        "app.yaml:2:10: threads: expected an integer from 1 to 256, got a secret value"
    ]


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = "warmup: {}\nworkers: x\nlog: {level: x, levle: y}\nworkers: 2\ntimeouts: {slow: 99s}\n"
    assert [line.split(": ")[:2] for line in mistakes_of(text)] == [
        ["app.yaml:1:1", "warmup"],
        ["app.yaml:1:1", "app"],
        ["app.yaml:2:10", "workers"],
        ["app.yaml:3:14", "log.level"],
        ["app.yaml:3:17", "log.levle"],
        ["app.yaml:4:1", "workers"],
        ["app.yaml:5:18", "timeouts.slow"],
    ]


def test_pools() -> None:
    text = """\
app: a:b
listen: 80
threads: x
pools:
  admin: {app: a:b, listen: 1}
  web: {app: a:b, listen: 8000, log: {}}
  api: {app: a:b, listen: ":8000", threads: 0}
  x.y: {app: a:b}
  none:
"""
    assert mistakes_of(text) == [
        "app.yaml:1:1: app: expected inside of a pool, got it at top level together with pools",
        "app.yaml:2:1: listen: expected inside of a pool, got it at top level together with pools",
        'app.yaml:3:10: threads: expected an integer from 1 to 256, got "x"',
        'app.yaml:5:3: pools.admin: expected a name other than "admin", which is reserved; choose another',
        "app.yaml:6:33: pools.web.log: expected at top level, got it inside of a pool",
        "app.yaml:7:27: pools.api.listen: expected an address of its own, got 0.0.0.0:8000, "
        "but pools.web.listen uses 0.0.0.0:8000 (app.yaml:6:27)",
        "app.yaml:7:45: pools.api.threads: expected an integer from 1 to 256, got 0",
        "app.yaml:8:3: pools.x.y: expected a name of letters, digits, - and _ that starts with a letter, got "
        '"x.y"',
        "app.yaml:9:3: pools.none: expected a mapping with the key app, got nothing",
    ]


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
WHOLE_FILES = {
    "empty": (b"", "app.yaml: expected at least `app: module:attribute`, got an empty file"),
    "comment": (b"# x\n", "app.yaml: expected at least `app: module:attribute`, got an empty file"),
    "list": (b"- a\n", "app.yaml:1:1: expected a mapping such as `app: module:attribute`, got a list"),
    "scalar": (b"hi", 'app.yaml:1:1: expected a mapping such as `app: module:attribute`, got "hi"'),
    "latin-1": (b"app: a:b\nname: \xe9", "app.yaml:2:1: expected UTF-8 text, got bytes that are not"),
    "10 MB": (b"x: y\n" * 2_000_000, "app.yaml: expected a config file of at most 256KiB, got a longer one"),
    "bomb": (
        BOMB.encode(),
        "app.yaml:5:14: expected at most 20000 values (what aliases repeat included), got more",
    ),
    "many": (b"[" + b"a," * 100_000, "app.yaml:1:40000: expected at most 20000 values (what aliases repeat "),
    "deep flow": (b"[" * 500, "app.yaml:1:21: expected at most 20 levels, got more"),
    "deep block": (b"- " * 900 + b"a", "app.yaml:1:41: expected at most 20 levels, got more"),
    "no app": (
        b"threads: 2",
        'app.yaml:1:1: app: missing: expected module:attribute, module, "module:create',
    ),
}


@pytest.mark.parametrize(("data", "expected"), WHOLE_FILES.values(), ids=WHOLE_FILES)
def test_a_file_that_is_no_config_is_one_clear_line(data: bytes, expected: str) -> None:
    (line,) = mistakes_of(data)
    assert line.startswith(expected)


SYNTAX = {
    "log:\n\tlevel: info": "app.yaml:2:1: not YAML",
    "app: 'a:b\nthreads: 2\n": "app.yaml:3:1: not YAML",
    "app: a:b\n  threads: 3\n": "app.yaml:2:10: not YAML",
    "name: ${A:-b: c}": "app.yaml:1:7: expected a value, got an unquoted ${A:-b: c}",
    'env: {A: "${A}" B: 1}': "app.yaml:1:17: not YAML: ",
    "log: {access_format: %h}": "app.yaml:1:22: not YAML: found character",
}


@pytest.mark.parametrize(("text", "expected"), SYNTAX.items(), ids=lambda text: text[:20])
def test_syntax_error(text: str, expected: str) -> None:
    (line,) = mistakes_of(text)
    assert line.startswith(expected)


def test_the_pure_python_parser_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefork.config.yaml.PARSER", yaml.SafeLoader)
    for text, expected in VALUES.items():
        assert mistakes_of(f"{text}\napp: shop:app\n") == [f"app.yaml:{expected}"]
    (line,) = mistakes_of("[" * 5000)
    assert line.startswith("app.yaml:1:21: expected at most 20 levels")
    for text, expected in SYNTAX.items():
        (line,) = mistakes_of(text)
        assert line.startswith(expected)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo("pipe")
    with pytest.raises(ConfigError) as caught:
        load(["nope.yaml", str(tmp_path), "pipe", "/dev/null"])
    assert str(caught.value).splitlines() == [
        "nope.yaml: cannot read the config file: No such file or directory",
        f"{tmp_path}: expected a config file, got a directory",
        "pipe: expected a regular file, got a pipe, socket or device",
        "/dev/null: expected a regular file, got a pipe, socket or device",
    ]


def test_mistakes_in_flags_and_variables_name_them() -> None:
    overrides = [
        Override("app", "a:b", "APP"),
        Override("workers", "x", "-w"),
        Override.from_set("log.lvl=info"),
        Override.from_set("timeouts.boot=[1"),
    ]
    with pytest.raises(ConfigError) as caught:
        load([], overrides, {"PORT": "http"})
    told = sorted(str(caught.value).splitlines())
    assert told[0].startswith("--set: log.lvl: unknown key")
    assert told[1].startswith("--set: timeouts.boot: not YAML")
    assert told[2] == '-w: workers: expected auto or an integer from 1 to 1024, got "x"'
    assert told[3].startswith("PORT: listen: expected host:port,")
    assert told[3].endswith('got "0.0.0.0:http"')
    assert len(told) == 4


def test_an_inherited_mistake_is_told_once() -> None:
    text = (
        "timeouts: {slow: 99s}\nthreads: x\npools:\n  a: {app: a:b, listen: 1}\n  b: {app: a:b, listen: 2}\n"
    )
    assert [line.partition(": ")[0] for line in mistakes_of(text)] == ["app.yaml:1:18", "app.yaml:2:10"]


def test_nothing_at_all() -> None:
    with pytest.raises(
        ConfigError, match=r"^app: missing: expected `app: module:attribute` in a config file, or "
    ):
        load([])
