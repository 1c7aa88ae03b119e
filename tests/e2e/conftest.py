"""Fixtures of the end-to-end tests."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import AS_NOBODY, Server, running, works


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A prefork that is not started yet, in a folder of its own."""
    with running(tmp_path) as made:
        yield made


@pytest.fixture
def public_server() -> Iterator[Server]:
    """A server in a folder that every user may read, like the one of a deployment."""
    if not works(*AS_NOBODY, sys.executable, "-c", "import prefork"):
        pytest.skip("needs root, setpriv, and a Python that other users may run")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        os.chmod(folder, 0o755)
        yield server
