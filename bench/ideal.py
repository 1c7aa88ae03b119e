"""The ideal: one queue before all workers, where nothing is lost on the way.

A request waits only while every worker is busy, and the one that came first is served first. It is simulated with
the scripts that the real clients follow, so that both see the same pauses and the same slow requests.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from bench.crowd import Step


def single_queue(
    scripts: Iterable[Iterator[Step]], workers: int, service_s: Callable[[str], float], seconds: float
) -> dict[str, list[float]]:
    """Return the latencies of the requests begun in so many seconds, by path.

    Each client takes its next step when it has its answer; ``service_s`` says how long a path keeps a worker.
    """
    serial = count()
    # What happens next: (when, a number that keeps the order of equals, script, request that ends or None).
    events: list[tuple[float, int, Iterator[Step], tuple[str, float] | None]] = []
    steps: dict[int, Step] = {}
    latencies_s: dict[str, list[float]] = defaultdict(list)
    queue: deque[tuple[float, Iterator[Step]]] = deque()

    def pause(script: Iterator[Step], now: float) -> None:
        steps[id(script)] = step = next(script)
        heapq.heappush(events, (now + step.pause_s, next(serial), script, None))

    scripts = list(scripts)
    for script in scripts:
        pause(script, 0.0)
    free = workers
    while events:
        now, _, script, ended = heapq.heappop(events)
        if ended is not None:
            path, came = ended
            latencies_s[path].append(now - came)
            free += 1
            pause(script, now)
        elif now < seconds:
            queue.append((now, script))
        while free and queue:
            came, script = queue.popleft()
            free -= 1
            path = steps[id(script)].path
            heapq.heappush(events, (now + service_s(path), next(serial), script, (path, came)))
    return latencies_s
