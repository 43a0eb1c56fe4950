"""Jobs side by side, each in a process of its own: what a finished federation is compared with and audited by.

The processes are of this machine, or of a Ray cluster. Here they are forked from one that has only imported the first work's code
(`multiprocessing`'s fork server), so that torch is read once, and not by every process of every table.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from multiprocessing.queues import SimpleQueue
from typing import Protocol, TypeVar

from common.data.cache import Said, leave_unsaid, what_was_said
from common.deployment.supervisor import die_with_parent
from simulation import cluster
from simulation.cluster import Cluster
from simulation.gpus import take_gpu, visible_gpus


class Named(Protocol):
    """A job that goes by a name of its own."""

    @property
    def name(self) -> str:
        """Unlike every other job's."""


J = TypeVar("J", bound=Named)
R = TypeVar("R")
Workers = int | Cluster  # processes of this machine, or as many as a cluster has cores


def side_by_side(
    work: Callable[[J], R], jobs: Sequence[J], workers: Workers, on_done: Callable[[str], None] | None = None
) -> dict[str, R]:
    """Do the work of every job.

    Args:
        work: a function of a module, and the jobs plain values, so that a new process can take them.
        jobs: each with a `name` of its own.
        workers: processes, or the cluster that has them.
        on_done: called with the name of each finished job.

    Returns:
        The results by the jobs' names, in the jobs' order.
    """
    results: dict[str, R] = {}
    with closing(as_they_end(work, jobs, workers)) as ended:
        for job, result in ended:
            results[job.name] = result
            if on_done is not None:
                on_done(job.name)
    return {job.name: results[job.name] for job in jobs}


def as_they_end(work: Callable[[J], R], jobs: Sequence[J], workers: Workers) -> Generator[tuple[J, R], None, None]:
    """Each job with its result, as soon as it is there. Whoever stops asking, by an error or Ctrl-C, leaves no process behind.

    Args as `side_by_side`.

    Raises:
        BrokenProcessPool: a process was killed, by want of memory most often.
        FederationError: the cluster does not answer, or a process was killed there.
    """
    if isinstance(workers, Cluster):
        yield from cluster.as_they_end(work, jobs, workers)
        return
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])  # no effect where it already runs: then each imports what it lacks
    slots: SimpleQueue[int] = context.SimpleQueue()
    for slot in range(workers):
        slots.put(slot)
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(slots, visible_gpus(), dict(os.environ), what_was_said())
    ) as pool:
        try:
            futures = {pool.submit(work, job): job for job in jobs}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            started = set(multiprocessing.active_children()) - before
            for process in started:
                process.terminate()
            pool.shutdown(cancel_futures=True)  # waits for the pool's own thread, which takes note of their end beside us
            for process in started:
                process.join()
            raise


def _begin(slots: "SimpleQueue[int]", gpus: int, environment: Mapping[str, str], said: frozenset[Said]) -> None:
    """What a process begins with: today's environment, a GPU of its slot, and an end no later than that of who asked for it.

    Of patients it says nothing that was said by who started it.
    Ctrl-C reaches every process of the terminal; who started this one ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()  # the fork server
    threading.Thread(target=_end_with_asker, daemon=True).start()
    os.environ.clear()  # it is that of the fork server's start
    os.environ.update(environment)
    leave_unsaid(said)
    take_gpu(slots.get(), gpus)


def _end_with_asker() -> None:
    """End with who asked for this process, by kill -9 too: the fork server goes on as long as any of its processes does."""
    asker = multiprocessing.parent_process()
    assert asker is not None
    asker.join()
    os._exit(1)
