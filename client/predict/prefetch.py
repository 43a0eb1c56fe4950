"""Reads patients ahead in threads, so that their slices are ready when the model is. Needs no torch."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from common.config.sections import DataConfig
from common.data.cases import Case
from common.data.slices import Sliced, slice_case
from common.errors import DataError

AHEAD = 2  # patients a thread that may wait in memory, some megabytes each

Read = tuple[Case, Sliced | DataError]


@contextmanager
def reading(cases: tuple[Case, ...], data: DataConfig) -> Iterator[Iterator[Read]]:
    """Each patient in order, with their slices or with what is wrong; reading begins at once, before anything is asked for.

    Threads do: unpacking, sorting and interpolation leave Python's lock to others.
    """
    cores = max(1, len(os.sched_getaffinity(0)))
    at_once = min(cores, max(1, len(cases)))
    with ThreadPoolExecutor(at_once) as pool:
        left = iter(cases)
        running: deque[tuple[Case, Future[Sliced]]] = deque()

        def begin() -> None:
            for case in left:
                running.append((case, pool.submit(slice_case, case, data, threads=-(-cores // at_once))))
                return

        for _ in range(AHEAD * at_once):
            begin()
        try:
            yield _results(running, begin)
        finally:
            for _, future in running:
                future.cancel()


def _results(running: deque[tuple[Case, Future[Sliced]]], begin: Callable[[], None]) -> Iterator[Read]:
    while running:
        case, future = running.popleft()
        try:
            result: Sliced | DataError = future.result()
        except DataError as error:
            result = error
        begin()
        yield case, result
