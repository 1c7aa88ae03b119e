"""Reloads when prefork itself is wrong; all else about them is in tests/e2e."""

from pathlib import Path

import pytest

from prefork.config import Loaded, load
from prefork.log import Log, Logs
from prefork.master.estate import Estate, ServerState
from prefork.master.loop import Loop
from prefork.master.news import News, ReloadBegan, ReloadEnded
from prefork.master.notify import Notifier
from prefork.master.reloads import Reloads


class Master:
    """Stands for the supervisor, as far as a reload gets that fails at once."""

    def __init__(self) -> None:
        self.errors = 0

    def internal_error(self) -> None:
        self.errors += 1

    def became_idle(self) -> None:
        pass


def test_a_mistake_of_ours_in_a_reload_does_not_keep_the_next_one_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("app.yaml").write_text("app: myapp:app\nworkers: 1\nlog: {to: ./events.log}\n")
    config = load(["app.yaml"], environ={}).config

    def read_config() -> Loaded:
        raise RuntimeError("a mistake")

    master = Master()
    estate = Estate(config, generation=1, state=ServerState.SERVING)
    log: Log = Logs(config.log).log
    loop = Loop(master.internal_error)
    news, told = News(master.internal_error), []
    news.listen(told.append)
    reloads = Reloads(estate, read_config, master, loop, log, Notifier(), news)  # type: ignore[arg-type]
    for _ in range(2):
        reloads.request()
        assert estate.state is ServerState.SERVING
    assert master.errors == 2
    assert [type(each) for each in told] == [ReloadBegan, ReloadEnded] * 2
    assert told[3].error == "a mistake"
    assert Path("events.log").read_text().count("the reload failed, generation 1 serves on: a mistake") == 2
