"""What tests of several folders use."""

from __future__ import annotations

import gc
import os
import sys
import traceback
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from chromium import COMMAND, Chromium
from pki import Pki

COVERAGE_VARIABLES = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let only the processes of tests that are marked ``measured`` count for coverage.

    A measured server and its children cost four times the processor time of others, for files that repeat each other.
    """
    names = () if item.get_closest_marker("measured") else COVERAGE_VARIABLES
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        return (yield)
    finally:
        os.environ.update(hidden)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Keys and certificates."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Drop what a failed test has left open, silently: else a later one is blamed for what its frames held."""
    report = yield
    if report.failed and call.excinfo is not None and not item.config.getoption("usepdb"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            error: BaseException | None = call.excinfo.value
            while error is not None:
                traceback.clear_frames(error.__traceback__)
                for frame, _ in traceback.walk_tb(error.__traceback__):
                    frame.f_locals  # noqa: B018  # the copy that pytest has asked for: it is brought up to date
                error = error.__context__
            gc.collect()
    return report


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless browser."""
    if COMMAND is None:
        pytest.skip("needs chromium")
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()
