"""How a process was started is how another version is started in its place."""

import pytest

from prefork.master.command import _options


@pytest.mark.parametrize(
    ("original", "arguments", "options"),
    [
        (["python", "/venv/bin/prefork", "-c", "app.yaml"], ["-c", "app.yaml"], ["-P"]),
        (["python", "-X", "dev", "/venv/bin/prefork"], [], ["-X", "dev", "-P"]),
        (["python", "-m", "prefork", "-c", "app.yaml"], ["-c", "app.yaml"], []),
        (["python", "-I", "-m", "prefork", "m:app"], ["m:app"], ["-I"]),
        (["python", "-c", "import prefork.cli.main as m; m.main()", "m:app"], ["m:app"], []),
    ],
)
def test_options_of_the_interpreter(original: list[str], arguments: list[str], options: list[str]) -> None:
    assert _options(original, arguments) == options
