"""The command as a whole: what it prints where, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import prefork
from prefork.cli import run
from prefork.cli.arguments import Invocation
from prefork.cli.main import main
from prefork.errors import ListenError

pytestmark = pytest.mark.measured

FILES = {
    "shop/__init__.py": "",
    "shop/wsgi.py": "print('printed by the import')\napplication = lambda environ, start_response: []\n",
    "shop/broken.py": "raise RuntimeError('no settings')\n",
    "app.yaml": "app: shop.wsgi\nlisten: 127.0.0.1:0\nworkers: 3\nenv: {TOKEN: '${file:token}'}\n",
    "bad.yaml": "app: shop.wsgi\nworkers: two\nthread: 1\n",
    "broken.yaml": "app: shop.broken\n",
    "token": "hush-hush\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with applications and configs."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for name in ("PREFORK_CONFIG", "PREFORK_CMD_ARGS", "PORT", "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def prefork_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prefork", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("line", "status", "out", "err"),
    [
        ("--version", 0, f"prefork {prefork.__version__}\n", ""),
        ("--help", 0, "  check                 validate, load the application", ""),
        ("--help", 0, "PREFORK_CMD_ARGS", ""),
        ("", 2, "", "prefork: nothing to serve: give -c FILE or an application; did you mean -c app.yaml?\n"),
        ("-D shop.wsgi", 2, "", "prefork: --daemon: prefork stays in the foreground"),
        ("check -c bad.yaml", 2, "", "bad.yaml:2:10: workers: expected"),
        ("check -c bad.yaml", 2, "", 'bad.yaml:3:1: thread: unknown key; did you mean "threads"?'),
        ("-c bad.yaml", 2, "", "bad.yaml:2:10: workers: expected"),
        ("check -c gone.yaml", 2, "", "gone.yaml: cannot read the config file: No such file or directory\n"),
        ("check -w two shop.wsgi", 2, "", "--workers: workers: expected"),
        ("check --no-app -c broken.yaml", 0, "app: shop.broken", "workers: auto"),
        ("check -k sync --no-app shop.wsgi", 0, "app: shop.wsgi", "prefork: note: -k sync has no effect"),
    ],
)
def test_output_and_status(
    line: str, status: int, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == status
    printed = capsys.readouterr()
    assert out in printed.out
    assert err in printed.err
    assert "Traceback" not in printed.err


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert "app" in json.loads(capsys.readouterr().out)["properties"]


def test_check_keeps_the_config_on_stdout_and_masks_secrets() -> None:
    done = prefork_command("check", "-c", "app.yaml")
    assert (done.returncode, "hush" in done.stdout + done.stderr) == (0, False)
    assert "workers: 3  # from app.yaml:3\n" in done.stdout
    assert "printed by the import" not in done.stdout
    assert "prefork: shop: shop.wsgi loads, in " in done.stderr
    assert "hush-hush" in prefork_command("check", "--show-secrets", "--no-app", "-c", "app.yaml").stdout


def test_check_of_an_application_that_cannot_be_loaded(folder: Path) -> None:
    done = prefork_command("check", "-c", "broken.yaml")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-4:] == [
        "Traceback (most recent call last):",
        f'  File "{folder}/shop/broken.py", line 1, in <module>',
        "    raise RuntimeError('no settings')",
        "RuntimeError: no settings",
    ]


def test_the_reader_of_stdout_may_leave() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "prefork", "schema"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ListenError("127.0.0.1:80: permission denied"), 4, "prefork: 127.0.0.1:80: permission denied\n"),
        (KeyboardInterrupt(), 1, "prefork: interrupted\n"),
        (RuntimeError("a bug"), 1, "RuntimeError: a bug\n"),
    ],
)
def test_failures_of_the_server(
    error: BaseException,
    status: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(invocation: Invocation) -> int:
        raise error

    monkeypatch.setattr(run, "run", fail)
    assert main(["shop.wsgi"]) == status
    assert capsys.readouterr().err.endswith(told)
