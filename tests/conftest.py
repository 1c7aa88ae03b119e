"""What tests of several folders use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from chromium import COMMAND, Chromium
from pki import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Keys and certificates."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless browser."""
    if COMMAND is None:
        pytest.skip("needs chromium")
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()
