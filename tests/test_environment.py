"""What the application finds around it: environment files, directories, umask, import path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefork.environment import read_env_file
from prefork.errors import ConfigError

pytestmark = pytest.mark.measured

ENTER = """
import json, os, sys, time
from types import SimpleNamespace
from prefork.environment import enter

pool = SimpleNamespace(**json.loads(sys.argv[1]))
enter(pool)
umask = os.umask(0)
print(json.dumps({"A": os.environ["A"], "B": os.environ["B"], "cwd": os.getcwd(), "umask": umask,
                  "path": sys.path[:2], "tz": time.tzname[0]}))
"""


def entered(cwd: Path, **keys: object) -> subprocess.CompletedProcess[str]:
    pool = {"umask": None, "env_file": [], "env": {}, "chdir": ".", "pythonpath": [], **keys}
    return subprocess.run(
        [sys.executable, "-c", ENTER, json.dumps(pool)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={
            **os.environ,
            "A": "inherited",
            "B": "inherited",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        },
    )


def test_enter(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "one.env").write_text("A=one\nB=one\n")
    (tmp_path / "two.env").write_text("B=two\nTZ=XYZ-3\n")
    done = entered(
        tmp_path,
        umask=0o027,
        env_file=["one.env", "two.env"],
        env={"A": "set"},
        chdir="app",
        pythonpath=["lib"],
    )
    assert json.loads(done.stdout) == {
        "A": "set",
        "B": "two",
        "cwd": f"{tmp_path}/app",
        "umask": 0o027,
        "path": [f"{tmp_path}/app/lib", f"{tmp_path}/app"],
        "tz": "XYZ",
    }


def test_no_such_directory(tmp_path: Path) -> None:
    done = entered(tmp_path, chdir="missing")
    assert done.stderr.endswith("ConfigError: chdir: cannot enter missing: No such file or directory\n")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("X=plain", "plain"),
        ("export X = spaced out  # comment", "spaced out"),
        ("X=a#b", "a#b"),
        ("X=", ""),
        ("X=#only a comment", ""),
        ("X='as $it \\n stands # here'  # comment", "as $it \\n stands # here"),
        ('X="two\\nlines \\"quoted\\" \\\\ # here"', 'two\nlines "quoted" \\ # here'),
        ("X=postgres://u:p@h/db?a=b", "postgres://u:p@h/db?a=b"),
        ("\ufeffX=1\r", "1"),
    ],
)
def test_env_file_values(tmp_path: Path, line: str, value: str) -> None:
    path = tmp_path / "x.env"
    path.write_text(f"{line}\n# comment\n\n", encoding="utf-8", newline="")
    assert read_env_file(str(path)) == {"X": value}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"A=1\nsecret-token\n", r":2: expected NAME=VALUE$"),
        (b"A-B=1\n", r":1: 'A-B' is not a name"),
        (b"A='secret\n", r":1: A: expected one closing quote"),
        (b'A="secret" x\n', r":1: A: expected one closing quote"),
        (b"A=sec\0ret\n", r":1: A: a value cannot hold a NUL byte"),
        (b"A=\xff\n", r"is not UTF-8 text"),
    ],
)
def test_env_file_mistakes_have_a_place_and_show_no_secret(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "x.env"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as error:
        read_env_file(str(path))
    assert "secret" not in str(error.value)


def test_env_file_missing() -> None:
    with pytest.raises(ConfigError, match=r"env_file: cannot read /no/such\.env: No such file"):
        read_env_file("/no/such.env")
