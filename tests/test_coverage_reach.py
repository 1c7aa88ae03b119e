"""The coverage figure can be believed: it counts a process forked twice that leaves with ``os._exit``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"

PROGRAM = """
import os


def worker():
    os.chdir("/")
    os.closerange(3, 64)
    seen = "counted"
    os._exit(0)


def intermediate():
    if os.fork() == 0:
        worker()
    os.wait()
    os._exit(0)


if os.fork() == 0:
    intermediate()
os.wait()
os._exit(0)
"""


@pytest.mark.parametrize("through", ["coverage itself", "a subprocess"])
def test_a_grandchild_that_leaves_with_os_exit_is_counted(tmp_path, through):
    (tmp_path / "prefork.py").write_text(PROGRAM)  # named like the package that the settings measure
    settings = ["--rcfile", str(PYPROJECT)]
    program = ["prefork.py"]
    if through == "a subprocess":
        (tmp_path / "start.py").write_text(
            "import subprocess, sys\nsubprocess.check_call([sys.executable, 'prefork.py'])"
        )
        program = ["start.py"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}

    def coverage(*arguments: str) -> None:
        command = [sys.executable, "-m", "coverage", *arguments]
        subprocess.run(command, cwd=tmp_path, env=environ, check=True, timeout=60)

    coverage("run", *settings, *program)
    coverage("combine", *settings, "--quiet")
    coverage("json", *settings, "--quiet", "--fail-under=0", "-o", "report.json")
    lines = json.loads((tmp_path / "report.json").read_text())["files"]["prefork.py"]["executed_lines"]
    assert PROGRAM.splitlines().index('    seen = "counted"') + 1 in lines
