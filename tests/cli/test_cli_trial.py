"""Loading an application in a child process: what the parent is told, whatever the application does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prefork.cli.trial import Outcome, try_loading
from prefork.config import Override, load

FILES = {
    "good.py": "application = lambda environ, start_response: []\n",
    "raises.py": "raise RuntimeError('x' * 100_000)\n",
    "dies.py": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "leaves.py": "import os\nos._exit(7)\n",
    "hangs.py": "import threading\nthreading.Event().wait()\n",
    "starts.py": (
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, name='pusher').start()\n"
        "application = lambda environ, start_response: []\n"
    ),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def trial(folder: Path, app: str, **values: object) -> Outcome:
    given = {"app": app, "chdir": str(folder), **values}
    overrides = [Override(path, value, "test") for path, value in given.items()]
    return try_loading(load((), overrides, {}).config.pools[0])


def test_a_good_application_stays_in_the_child(folder: Path) -> None:
    outcome = trial(folder, "good")
    assert (outcome.status, outcome.error, outcome.leftovers) == (0, "", ())
    assert "good" not in sys.modules


def test_what_its_import_leaves_is_told(folder: Path) -> None:
    assert trial(folder, "starts").leftovers == ("pusher",)


def test_hooks_are_imported(folder: Path) -> None:
    outcome = trial(folder, "good", hooks={"after_fork": "good:missing"})
    assert outcome.error.startswith("hook after_fork: ")


def test_surroundings_that_cannot_be_entered_are_a_mistake_of_the_config(folder: Path) -> None:
    outcome = trial(folder, "good", chdir=f"{folder}/nowhere")
    assert (outcome.status, outcome.error[:19]) == (2, "chdir: cannot enter")


@pytest.mark.parametrize(
    ("app", "told"),
    [
        ("raises", "RuntimeError: xxx"),
        ("dies", "dies ended the process that loaded it (killed by SIGKILL)"),
        ("leaves", "leaves ended the process that loaded it (exit status 7)"),
        ("nowhere", 'there is no module "nowhere"'),
    ],
)
def test_failures(folder: Path, app: str, told: str) -> None:
    outcome = trial(folder, app)
    assert outcome.status == 3
    assert told in outcome.error


def test_an_import_that_hangs_ends_at_the_boot_timeout(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    error = trial(folder, "hangs", **{"timeouts.boot": "1s"}).error
    assert error == "hangs did not load within timeouts.boot (1 s); see its stack above"
    assert "hangs.py" in capfd.readouterr().err
