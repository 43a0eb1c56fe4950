"""Two times as one ratio."""

import statistics
import time
from collections.abc import Callable

REPEATS = 5


def ratio(first: Callable[[], object], second: Callable[[], object]) -> float:
    """Median time of the first over that of the second, taken in turns after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(REPEATS + 1):
        for function, taken in zip((first, second), times, strict=True):
            began = time.perf_counter()
            function()
            if turn:
                taken.append(time.perf_counter() - began)
    return round(statistics.median(times[0]) / statistics.median(times[1]), 3)
