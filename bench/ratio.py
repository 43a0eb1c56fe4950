"""Two times as one ratio: processor seconds, since others may use the machine; of processes that are waited for, too."""

import os
import statistics
from collections.abc import Callable

REPEATS = 5


def ratio(first: Callable[[], object], second: Callable[[], object]) -> float:
    """Median processor time of the first over that of the second, taken in turns after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(REPEATS + 1):
        for function, taken in zip((first, second), times, strict=True):
            began = _clock()
            function()
            if turn:
                taken.append(_clock() - began)
    return round(statistics.median(times[0]) / statistics.median(times[1]), 3)


def _clock() -> float:
    """User and system seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])
