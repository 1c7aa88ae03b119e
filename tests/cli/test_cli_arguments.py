"""From command lines to invocations: commands, applications, sources and gunicorn's flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from prefork.cli.arguments import Invocation, read
from prefork.cli.remote.asking import Asked
from prefork.errors import UsageError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: what lies in it tells a module from a misspelt command."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(invocation: Invocation) -> dict[str, object]:
    return {override.path: override.value for override in invocation.overrides}


def parse(line: str, **environment: str) -> Invocation:
    return read(line.split(), environment)


@pytest.mark.parametrize(
    ("line", "command", "files", "app"),
    [
        ("-c app.yaml", "run", ("app.yaml",), None),
        ("run -c app.yaml", "run", ("app.yaml",), None),
        ("-c base.yaml -c site.yaml", "run", ("base.yaml", "site.yaml"), None),
        ("check -c app.yaml", "check", ("app.yaml",), None),
        ("-c app.yaml check", "check", ("app.yaml",), None),
        ("shop.wsgi:application", "run", (), "shop.wsgi:application"),
        ("check shop.wsgi", "check", (), "shop.wsgi"),
        ("-w 4 shop/wsgi.py:app -c app.yaml", "run", ("app.yaml",), "shop/wsgi.py:app"),
        ("run run:app", "run", (), "run:app"),
        ("zebra", "run", (), "zebra"),
        ("json", "run", (), "json"),
        ("schema", "schema", (), None),
        ("check -- a:b", "check", (), "a:b"),
        ("--set pools.a.app=b:c", "run", (), None),
        ("-n stop a:b", "run", (), "a:b"),
        ("-t 30 a:b", "run", (), "a:b"),
    ],
)
def test_commands_and_applications(line: str, command: str, files: tuple[str, ...], app: str | None) -> None:
    read_ = parse(line)
    assert (read_.command, read_.files, values(read_).get("app")) == (command, files, app)


def test_a_bare_word_near_a_command_is_a_module_when_there_is_one(folder: Path) -> None:
    with pytest.raises(UsageError, match='"shop" is neither a command nor a module; did you mean "stop"'):
        parse("shop")
    (folder / "shop.py").touch()
    assert values(parse("shop")) == {"app": "shop"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "nothing to serve: give -c FILE or an application"),
        ("-w 4", "nothing to serve"),
        ("chek -c app.yaml", 'did you mean "check"?'),
        ("--worker 4 a:b", "unknown option --worker; did you mean"),
        ("--thread=4 a:b", "unknown option --thread; did you mean"),
        ("a:b c:d", 'unexpected argument "c:d" after run'),
        ("schema x", 'unexpected argument "x" after schema'),
        ("-c", "-c/--config: expected one argument"),
        ("run --no-app -c x.yaml", "--no-app and --show-secrets belong to the command check"),
        ("--set workers a:b", "--set: expected key.path=VALUE"),
        ("reload x", 'unexpected argument "x" after reload'),
        ("status --no-wait", "--no-wait: status has nothing to wait for"),
        ("status --jsno", "this command has no option --jsno; did you mean"),
        ("reload --timeout soon", "--timeout: expected a duration such as 30s or 5m"),
        ("scale", "scale: expected a number of workers, such as 4, or POOL=4"),
        ("scale web=", "scale: expected a number of workers, such as 4, or POOL=4, got"),
        ("recycle shop.0 --all", "recycle: expected a slot or --all, got both"),
        ("stop --all", "--all belongs to recycle, not to stop"),
        ("-w 4 stop", "stop: a command to a running server takes no options of another kind before it"),
        ("init", "init: not available in this version; write app.yaml by hand"),
        ("-c gunicorn.conf.py a:b", "prefork reads YAML, not Python"),
        ("-k gevent a:b", "prefork has one kind of worker"),
        ("-k uvicorn.workers.UvicornWorker a:b", "a2wsgi"),
        ("-D a:b", "--daemon: prefork stays in the foreground"),
        ("--reload a:b", "--reload: not available in this version yet"),
        ("--max-requests-jitter 100 a:b", "--max-requests-jitter: give --max-requests too"),
        ("-e SECRET a:b", '--env: expected NAME=VALUE, got "SECRET"'),
        ("-m rw a:b", "--umask: expected a number"),
        ("--backlog 64 a:b", "--backlog: give the address too"),
    ],
)
def test_mistakes(line: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert told in str(caught.value)


def test_a_file_in_reach_is_offered(folder: Path) -> None:
    (folder / "app.yaml").touch()
    with pytest.raises(UsageError, match=r"did you mean -c app\.yaml"):
        parse("")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-b :8000", {"listen": [":8000"]}),
        (
            "-b 127.0.0.1:80 --bind unix:/run/a -b fd://3",
            {"listen": ["127.0.0.1:80", "unix:/run/a", "fd:3"]},
        ),
        ("-b :80 --backlog 64", {"listen": [{"address": ":80", "backlog": "64"}]}),
        ("-w 4", {"workers": "4"}),
        ("--workers=4 --threads 2", {"workers": "4", "threads": "2"}),
        ("-t 30 --graceful-timeout 10", {"timeouts.request": "30", "timeouts.graceful": "10"}),
        ("--keep-alive 5 --preload", {"timeouts.keep_alive": "5", "preload": True}),
        (
            "--max-requests 1000 --max-requests-jitter 50",
            {"recycle.requests": "1000", "recycle.jitter": "5.000%"},
        ),
        (
            "--max-requests 10 --max-requests-jitter 50",
            {"recycle.requests": "10", "recycle.jitter": "100.000%"},
        ),
        ("--max-requests 0", {"recycle.requests": "0"}),
        ("--access-logfile - --error-logfile -", {"log.access": "stdout", "log.to": "stderr"}),
        ("--access-logfile a.log --log-file /l/e", {"log.access": "./a.log", "log.to": "/l/e"}),
        (
            "--access-logformat %(h)s --log-level debug",
            {"log.access_format": "%(h)s", "log.level": "debug"},
        ),
        ("-e A=1 --env B=x=y", {"env": {"A": "1", "B": "x=y"}}),
        ("--chdir /srv --pythonpath lib,vendor", {"chdir": "/srv", "pythonpath": ["lib", "vendor"]}),
        ("-p /run/p -n shop", {"pidfile": "/run/p", "name": "shop"}),
        ("-u www -g adm -m 022", {"user": "www", "group": "adm", "umask": "0022"}),
        ("-m 0o27", {"umask": "0027"}),
        ("--forwarded-allow-ips 10.0.0.1,::1", {"proxy.trust": ["10.0.0.1", "::1"]}),
        ("--forwarded-allow-ips *", {"proxy.trust": ["0.0.0.0/0", "::/0", "unix"]}),
        ("--set timeouts.request=5m", {"timeouts.request": "5m"}),
    ],
)
def test_flags_are_aliases_of_keys(line: str, expected: Mapping[str, object]) -> None:
    assert values(read([*line.split(), "a:b"], {})) == {"app": "a:b", **expected}


def test_flags_without_effect_are_noted() -> None:
    notes = parse("-k gthread --worker-tmp-dir /dev/shm a:b").notes
    assert [note.split(" has no effect")[0] for note in notes] == ["-k gthread", "--worker-tmp-dir"]


def test_the_environment_is_below_the_command_line() -> None:
    read_ = parse("-w 4 a:b", PREFORK_CMD_ARGS="-w 2 --name 'my shop' c:d", PREFORK_CONFIG="x.yaml:y.yaml")
    assert read_.files == ("x.yaml", "y.yaml")
    assert values(read_) == {"app": "a:b", "workers": "4", "name": "my shop"}
    assert [o.origin for o in read_.overrides if o.path == "workers"] == [
        "PREFORK_CMD_ARGS --workers",
        "--workers",
    ]


def test_config_files_come_from_the_nearest_source() -> None:
    environment = {"PREFORK_CMD_ARGS": "-c args.yaml", "PREFORK_CONFIG": "variable.yaml"}
    assert read(["-c", "line.yaml"], environment).files == ("line.yaml",)
    assert read([], environment).files == ("args.yaml",)
    assert read([], {"PREFORK_CONFIG": "variable.yaml"}).files == ("variable.yaml",)


def test_no_other_variable_is_read() -> None:
    injected = {
        "PREFORK_PORT": "tcp://10.0.0.1:80",
        "PREFORK_SERVICE_HOST": "10.0.0.1",
        "PREFORK_WORKERS": "9",
    }
    assert read(["a:b"], injected) == read(["a:b"], {})


@pytest.mark.parametrize("text", ["--nonsense", "-w", "'unclosed"])
def test_mistakes_in_the_variable_name_it(text: str) -> None:
    with pytest.raises(UsageError, match=r"^PREFORK_CMD_ARGS: "):
        parse("a:b", PREFORK_CMD_ARGS=text)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("status", Asked("status", timeout_s=10.0)),
        ("--json --control=/run/x status", Asked("status", control="/run/x", timeout_s=10.0, json=True)),
        ("reload -c a.yaml -c b.yaml", Asked("reload", ("a.yaml", "b.yaml"))),
        ("-c a.yaml reload --no-wait --json", Asked("reload", ("a.yaml",), json=True, waits=False)),
        ("stop --timeout 30 --control /run/x", Asked("stop", control="/run/x", timeout_s=30.0)),
        ("scale -t 1m web=4", Asked("scale", timeout_s=60.0, arguments={"workers": 4, "pool": "web"})),
        ("scale 4", Asked("scale", arguments={"workers": 4})),
        ("recycle --all", Asked("recycle", arguments={"all": True})),
        ("stacks shop.0", Asked("stacks", timeout_s=10.0, arguments={"slot": "shop.0"})),
    ],
)
def test_commands_to_a_running_server(line: str, expected: Asked) -> None:
    assert parse(line).asked == expected


def test_the_environment_says_which_server_is_meant() -> None:
    environment = {"PREFORK_CMD_ARGS": "-c args.yaml", "PREFORK_CONFIG": "variable.yaml"}
    assert parse("status", **environment).files == ("args.yaml",)
    assert parse("status --control /run/x", **environment).files == ()
