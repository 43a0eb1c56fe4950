"""One federation through `flwr run`, around its traps: it returns at once, and with 0 even when the run fails.

Success is judged by Flower's status and by our own report.json; a failure is told by the server's own sentence (error.json).
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.deployment.flower_cli import (
    NAME,
    error_sentence,
    flwr,
    program,
    run_status,
    write_run_config,
)
from common.errors import FederationError
from common.messages.code_version import code_hash
from server.run.ending import ERROR_NAME
from server.run.plan import require_folder
from server.run.resume import require_free
from server.run.round_lines import OnRound, RoundFollower, read_rounds
from simulation.cluster import Cluster, connected, share_of
from simulation.gpus import visible_gpus
from simulation.superlink import SuperLink, own_superlink

POLL_SECONDS = 0.5
STATUS_SECONDS = 15.0  # `flwr ls` costs a second of CPU: asked rarely while the run goes on
ENDING_SECONDS = 120.0  # for Flower to call a run finished whose report is there
TAIL_LINES = 12
TELLING = ("Error", "Exception", "ERROR", "Traceback", "Killed", "out of memory")


@dataclass(frozen=True)
class Run:
    """A run that Flower has taken on."""

    superlink: SuperLink
    id: str
    out: Path  # the run folder
    log: Path  # what server and sites print


def run_federation(
    app: Path,
    run_config: Mapping[str, str | int],
    sites: int,
    out: Path,
    *,
    on_round: OnRound | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Through `flwr run` and Ray; arguments and errors as `simulation.engines.run_federation`."""
    out = out.expanduser().resolve()
    backend = cluster_resources(cluster, sites) if cluster else resources(sites)
    settings, rounds = open_folder(run_config, out, on_round)
    with own_superlink(out / "logs" / "superlink.log", cluster) as superlink:
        config = superlink.home / "run.toml"
        write_run_config(config, settings)
        federation = " ".join(f"{k}={v}" for k, v in backend.items())
        command = ["run", str(app.resolve()), NAME, "--run-config", str(config), "--federation-config", federation]
        run = Run(superlink, str(flwr(superlink, command).get("run-id")), out, out / "logs" / "run.log")
        with run.log.open("wb") as output:
            arguments = [program("flwr"), "log", run.id, NAME, "--stream"]
            stream = subprocess.Popen(
                arguments,
                env=superlink.environment,
                cwd=superlink.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            _watch(run, stream, rounds)
        finally:
            _end_stream(stream)


def open_folder(
    run_config: Mapping[str, str | int], out: Path, on_round: OnRound | None
) -> tuple[dict[str, str | int], RoundFollower]:
    """Make the run folder ready for a run that begins or goes on, whichever engine it has.

    Returns:
        The run's whole configuration, and what passes on its rounds.

    Raises:
        FederationError: the folder is taken, or holds another run.
    """
    resumed = run_config.get("resume") is True
    require_folder(out, resume=resumed)
    require_free(out)
    rounds = RoundFollower(out, on_round, told=len(read_rounds(out)) if resumed else 0)
    (out / "logs").mkdir(parents=True, exist_ok=True)
    (out / ERROR_NAME).unlink(missing_ok=True)
    return {**run_config, "out": str(out), "code": code_hash()}, rounds


def resources(sites: int) -> dict[str, int | float]:
    """Flower's simulation settings for this machine: one core a site at a time, and the GPUs shared by those that run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = max(1, min(cores, sites))
    settings: dict[str, int | float] = {
        "num-supernodes": sites,
        "client-resources-num-cpus": 1,
        "init-args-num-cpus": at_once,
        "client-resources-num-gpus": 0.0,
    }
    if gpus := visible_gpus():
        share = min(1.0, int(1000 * gpus / at_once) / 1000)  # rounded down, so that all fit
        settings |= {"client-resources-num-gpus": share, "init-args-num-gpus": gpus}
    return settings


def cluster_resources(cluster: Cluster, sites: int) -> dict[str, int | float]:
    """Flower's simulation settings for a cluster: its cores and GPUs in equal shares, a site at a time each.

    What Ray would be started with has no place here.

    Raises:
        FederationError: the cluster cannot be used.
    """
    with connected(cluster) as ray:
        share = share_of(ray, sites)
    return {"num-supernodes": sites, "client-resources-num-cpus": share.cores, "client-resources-num-gpus": share.gpus}


def _watch(run: Run, stream: subprocess.Popen[bytes], rounds: RoundFollower) -> None:
    """Wait for the run's end and judge it. The log's stream ends with the run: then its status is asked for at once."""
    asked, reported = time.monotonic(), 0.0
    while True:
        rounds.follow()
        if (run.out / ERROR_NAME).is_file():
            raise FederationError(_server_error(run))
        if run.superlink.process.poll() is not None:
            raise FederationError(f"Flower's SuperLink ended by itself; its log is {run.superlink.log}.{_tail(run)}")
        if time.monotonic() - asked >= (STATUS_SECONDS if stream.poll() is None else 1.0):
            status = _status(run)
            asked = time.monotonic()
            if status.startswith("finished"):
                rounds.follow()
                _judge(run, status)
                return
        reported = reported or (time.monotonic() if (run.out / "report.json").is_file() else 0.0)
        if reported and time.monotonic() - reported > ENDING_SECONDS:
            raise FederationError(f"The report is written, but Flower did not end the run; its log is {run.log}.")
        time.sleep(POLL_SECONDS)


def _judge(run: Run, status: str) -> None:
    """A finished run is good only if Flower and the report both say so."""
    if (run.out / ERROR_NAME).is_file():
        raise FederationError(_server_error(run))
    if status != "finished:completed" or not (run.out / "report.json").is_file():
        raise FederationError(f"The run ended as '{status}' without a result; its log is {run.log}.{_tail(run)}")


def _end_stream(stream: subprocess.Popen[bytes]) -> None:
    """Give the log's stream a moment to write the last lines, then end it."""
    try:
        stream.wait(2.0)
    except subprocess.TimeoutExpired:
        stream.kill()
        stream.wait()


def _server_error(run: Run) -> str:
    """The sentence that the ServerApp left."""
    return error_sentence(run.out / ERROR_NAME, f"The server failed; its log is {run.log}.")


def _status(run: Run) -> str:
    """Flower's word for the run, such as `running` or `finished:failed`."""
    return run_status(run.superlink, run.id)


def _tail(run: Run) -> str:
    """The last lines of the logs that tell of an error."""
    return telling_lines(run.superlink.log, run.log)


def telling_lines(*logs: Path) -> str:
    """The last lines of logs that tell of an error, each on a line of its own."""
    lines: list[str] = []
    for log in logs:
        with contextlib.suppress(OSError):
            lines += log.read_text(encoding="utf-8", errors="replace").splitlines()
    telling = [line.strip()[:200] for line in lines if any(word in line for word in TELLING)][-TAIL_LINES:]
    return "".join(f"\n  {line}" for line in telling)
