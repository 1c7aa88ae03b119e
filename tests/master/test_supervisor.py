"""What the supervisor does when prefork itself is wrong; all else about it is in tests/e2e."""

from pathlib import Path

import pytest

from prefork.config import Loaded, load
from prefork.log import Logs
from prefork.master.supervisor import Supervisor


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    monkeypatch.chdir(tmp_path)
    Path("app.yaml").write_text("app: myapp:app\nlisten: 127.0.0.1:0\nworkers: 1\nlog: {to: ./events.log}\n")
    return load(["app.yaml"], environ={})


def test_a_mistake_of_ours_in_a_reload_does_not_keep_the_next_one_waiting(loaded: Loaded) -> None:
    reads: list[str] = []

    def read_config() -> Loaded:
        reads.append("read")
        raise RuntimeError("a mistake")

    supervisor = Supervisor(loaded, read_config, lambda *args: 0, Logs(loaded.config.log))
    supervisor._serve()
    for _ in range(2):
        supervisor.reload()
    assert reads == ["read", "read"]
    log = Path("events.log").read_text()
    assert log.count("the reload failed, generation 1 serves on: a mistake") == 2
    assert 'raise RuntimeError("a mistake")' in log
