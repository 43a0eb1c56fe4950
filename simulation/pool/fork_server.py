"""The process that all others of a run are forked from: it imports the code once, computes nothing, and starts what is asked for.

`python -m simulation.pool` reads its job as JSON on standard input, and ends with the exit code of the run's server.
A process that has computed with several threads must not be forked, hence this one, and hence ONE_THREAD in its environment.
"""

import json
import multiprocessing
import os
import socket
import struct
import sys
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.deployment.supervisor import die_with_parent
from server.app import app as server_app
from simulation.marked_processes import terminable
from simulation.pool.grid import PoolGrid, Started
from simulation.pool.job import Job
from simulation.pool.worker import serve

NUMBER = struct.Struct("<i")  # request: the slot that wants a worker; answer, beside its socket: how the one before it ended
FORK = multiprocessing.get_context("fork")


def main() -> int:
    """Start the run's server, and workers for it until it has ended."""
    job = Job(**json.load(sys.stdin))
    _end_with(job.parent)
    ours, theirs = socket.socketpair()
    server = FORK.Process(target=_serve_run, args=(theirs, ours, job, os.getpid()), name="fedmri-server")
    server.start()
    theirs.close()
    workers = _start_workers(ours, job)
    server.join()
    for worker in workers.values():
        worker.kill()
        worker.join()
    code = server.exitcode or 0
    return 128 - code if code < 0 else code


def _start_workers(control: socket.socket, job: Job) -> dict[int, ForkProcess]:
    """Start a worker whenever the server asks; returns those that are left when it has ended."""
    workers: dict[int, ForkProcess] = {}
    while request := control.recv(NUMBER.size, socket.MSG_WAITALL):
        [slot] = NUMBER.unpack(request)
        before = _ended(workers[slot]) if slot in workers else 0
        near, far = socket.socketpair()
        workers[slot] = FORK.Process(target=_work, args=(near, [control, far], slot, job, os.getpid()))
        workers[slot].start()
        near.close()
        with far:
            socket.send_fds(control, [NUMBER.pack(before)], [far.fileno()])
    return workers


def _ended(worker: ForkProcess) -> int:
    """The exit code of a worker that has let go of its connection."""
    worker.join(1.0)
    worker.kill()
    worker.join()
    return worker.exitcode or 0


def _work(connection: socket.socket, others: list[socket.socket], slot: int, job: Job, parent: int) -> None:
    """A worker's whole life."""
    _end_with(parent)
    for other in others:
        other.close()
    serve(Connection(connection.detach()), slot, job.gpus)


def _serve_run(control: socket.socket, other: socket.socket, job: Job, parent: int) -> None:
    """The run's server: our ServerApp, as Flower calls it."""
    _end_with(parent)
    other.close()
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

    def start(slot: int) -> Started:
        control.sendall(NUMBER.pack(slot))
        data, [descriptor], *_ = socket.recv_fds(control, NUMBER.size, 1)
        return Started(Connection(descriptor), NUMBER.unpack(data)[0])

    with terminable():
        grid = PoolGrid(job.nodes, job.workers, start)
        server_app(grid, Context(1, 1, {}, RecordDict(), dict(job.settings)))


def _end_with(parent: int) -> None:
    """Not to outlive who started this process, whatever ends them."""
    die_with_parent()
    if os.getppid() != parent:  # it has gone in the meantime
        os._exit(1)
