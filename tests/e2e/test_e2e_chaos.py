"""A short chaos: see ``bench/chaos.py``; ``python -m bench.chaos`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.chaos import Chaos


@pytest.mark.timeout(180)
@pytest.mark.parametrize("gentle", [False, True])
def test_after_a_little_chaos_nothing_is_left_of_it(tmp_path: Path, gentle: bool) -> None:
    chaos = Chaos(tmp_path, seed=5)
    try:
        report = chaos.run(seconds=5, gentle=gentle)
    finally:
        chaos.end()
    assert report.requests > 50
    assert not report.failures
    assert not (gentle and report.excused)
    assert not report.internal_errors
    assert not report.misread
    assert len(report.looks) == 5
    assert report.after.descriptors == report.before.descriptors  # type: ignore[union-attr]
    assert report.after.uss_kib < report.before.uss_kib + 8 * 1024  # type: ignore[union-attr]
    assert (report.exit_status, report.left) == (0, [])
