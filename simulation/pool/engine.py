"""Runs a federation in the pool, and judges it as the other engine does: by the report, and by the server's own sentence."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from common.deployment.flower_cli import error_sentence, flower_environment
from common.errors import FederationError
from server.run.ending import ERROR_NAME
from server.run.round_lines import OnRound
from simulation.flower import open_folder, resources, telling_lines
from simulation.marked_processes import MARK, ONE_THREAD, end_marked, terminable, undisturbed
from simulation.pool.job import Job

POLL_SECONDS = 0.2  # between two looks for new rounds


def run_federation(
    app: Path, run_config: Mapping[str, str | int], sites: int, out: Path, *, on_round: OnRound | None = None
) -> None:
    """Run one federation in the pool; args and errors as `simulation.engines.run_federation`."""
    out = out.expanduser().resolve()
    settings, rounds = open_folder(run_config, out, on_round)
    shared = resources(sites)
    job = Job(settings, sites, int(shared["init-args-num-cpus"]), int(shared.get("init-args-num-gpus", 0)), os.getpid())
    with _fork_server(job, app, out / "logs" / "run.log") as process:
        while _runs(process):
            rounds.follow()
    rounds.follow()
    _judge(out, process.returncode)


@contextmanager
def _fork_server(job: Job, app: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Start it, and end it with all its descendants on any way out."""
    mark = uuid.uuid4().hex
    with terminable(), TemporaryDirectory(prefix="fedmri-") as home, log.open("wb") as output:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "simulation.pool"],
                cwd=app,
                env=flower_environment(Path(home)) | ONE_THREAD | {MARK: mark},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C reaches us alone; we end the rest in order
            )
            assert process.stdin
            with process.stdin:
                process.stdin.write(job.to_json())
            yield process
        finally:
            with undisturbed():
                end_marked(mark)
                process.wait()


def _runs(process: "subprocess.Popen[str]") -> bool:
    """Wait a little; whether it runs after that."""
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _judge(out: Path, code: int) -> None:
    """A run is good only if its server ended well and left a report.

    Raises:
        FederationError: it is not.
    """
    log = out / "logs" / "run.log"
    if (out / ERROR_NAME).is_file():
        raise FederationError(error_sentence(out / ERROR_NAME, f"The server failed; its log is {log}."))
    if code or not (out / "report.json").is_file():
        how = f"was ended by signal {code - 128}, for want of memory most often" if code > 128 else f"ended with code {code}"
        raise FederationError(f"The run's server {how}, without a result; its log is {log}.{telling_lines(log)}")
