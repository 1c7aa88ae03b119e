"""The ideal single queue, on cases that can be worked out by hand."""

from __future__ import annotations

import pytest

from bench.crowd import Step
from bench.ideal import single_queue

SERVICE_S = {"/fast": 1.0, "/slow": 10.0}


def simulate(
    scripts: list[list[Step]], workers: int, seconds: float, service_s: dict[str, float] = SERVICE_S
) -> dict[str, list[float]]:
    """Let each script end with a pause that lasts for ever."""
    endless = [iter([*script, *[Step(1e9)] * 2]) for script in scripts]
    return single_queue(endless, workers, service_s.__getitem__, seconds)


def test_a_request_waits_only_while_every_worker_is_busy() -> None:
    latencies = simulate([[Step(0, "/slow")], [Step(1, "/fast")], [Step(2, "/fast")]], workers=2, seconds=100)
    assert latencies == {"/slow": [10.0], "/fast": [1.0, 1.0]}


def test_who_came_first_is_served_first_by_the_worker_that_is_free_first() -> None:
    scripts = [[Step(0, "/slow")], [Step(5, "/slow")], [Step(6, "/fast")], [Step(7, "/fast")]]
    latencies = simulate(scripts, workers=2, seconds=100)
    # Free at 10 and at 15: the first fast one runs from 10 to 11, the second from 11 to 12.
    assert latencies == {"/slow": [10.0, 10.0], "/fast": [5.0, 5.0]}


def test_a_client_asks_again_only_after_its_answer() -> None:
    latencies = simulate([[Step(0, "/slow"), Step(2, "/fast")], [Step(1, "/fast")]], workers=1, seconds=100)
    # The slow one ends at 10, the fast one that waited for it at 11, the next comes at 12.
    assert latencies == {"/slow": [10.0], "/fast": [10.0, 1.0]}


@pytest.mark.parametrize(("seconds", "answers"), [(2.5, 3), (3.5, 4)])
def test_what_was_begun_in_time_is_counted_also_when_it_ends_later(seconds: float, answers: int) -> None:
    latencies = simulate([[Step(0, "/fast")] * 9], workers=1, seconds=seconds)
    assert latencies == {"/fast": [1.0] * answers}
