"""Which limits a path has."""

import pytest

from prefork.config import TimeoutsOfPath
from prefork.timelimits import TimeLimits

LIMITS = TimeLimits(
    60,
    5,
    [
        TimeoutsOfPath("/reports/", 300, None),
        TimeoutsOfPath("/reports/daily", 2, None),
        TimeoutsOfPath("/stream", 0, 0.0),
        TimeoutsOfPath("/own", 10, 7.0),
    ],
)


@pytest.mark.parametrize(
    ("path", "limits"),
    [
        ("/", (60, 5)),
        ("", (60, 5)),
        ("/reports", (300, 5)),
        ("/reports/", (300, 5)),
        ("/reportsx", (60, 5)),
        ("/reports/x", (300, 5)),
        ("/reports/daily/x", (2, 1)),
        ("/reports/dailyx", (300, 5)),
        ("/stream", (0, 0)),
        ("/own", (10, 7)),
    ],
)
def test_the_longest_path_that_fits_counts(path: str, limits: tuple[float, float]) -> None:
    assert tuple(limit / 1e9 for limit in LIMITS.of(path)) == limits


def test_all_limits_are_told_of_to_the_master() -> None:
    assert sorted(LIMITS.all_s()) == [1, 2, 5, 5, 7, 10, 60, 300]
    assert list(TimeLimits(0, 0, [TimeoutsOfPath("/", 0, None)]).all_s()) == []
    assert TimeLimits(0, 0, [TimeoutsOfPath("/", 3, None)]).of("/x").deadline_ns == 3 * 10**9
    assert not TimeLimits(1, 1).vary
