"""Jobs side by side, each in a process of its own: what a finished federation is compared with and audited by."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Protocol, TypeVar


class Named(Protocol):
    """A job that goes by a name of its own."""

    @property
    def name(self) -> str:
        """Unlike every other job's."""


J = TypeVar("J", bound=Named)
R = TypeVar("R")


def side_by_side(
    work: Callable[[J], R], jobs: Sequence[J], workers: int, on_done: Callable[[str], None] | None = None
) -> dict[str, R]:
    """Do the work of every job.

    Args:
        work: a function of a module, and the jobs plain values, so that a new process can take them.
        jobs: each with a `name` of its own.
        workers: processes.
        on_done: called with the name of each finished job.

    Returns:
        The results by the jobs' names, in the jobs' order.
    """
    results: dict[str, R] = {}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            futures = {pool.submit(work, job): job.name for job in jobs}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                if on_done is not None:
                    on_done(futures[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {job.name: results[job.name] for job in jobs}
