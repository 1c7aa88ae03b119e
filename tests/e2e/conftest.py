"""Fixtures of the end-to-end tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Server, running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A prefork that is not started yet, in a folder of its own."""
    with running(tmp_path) as made:
        yield made
