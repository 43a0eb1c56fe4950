"""The pool with real processes: what becomes of a run whose workers are killed, or that is ended itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulation.marked_processes import MARK
from simulation.phantom.hospitals import write_hospitals
from tests.integration.test_flwr_run import CHECKOUT, CONFIG

pytestmark = pytest.mark.slow

SCRIPT = (
    "import json, sys\nfrom pathlib import Path\nfrom simulation.engines import run_federation\n"
    "if __name__ == '__main__':\n"
    "    run_federation('pool', Path(sys.argv[1]), json.loads(sys.argv[2]), 2, Path(sys.argv[3]))\n"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hospitals") / "data"
    write_hospitals(folder, sites=2, patients=3, external=2, seed=1)
    return folder


@pytest.fixture
def run(tmp_path, data):
    """A run that has begun, as a process."""
    (tmp_path / "tiny.toml").write_text(
        CONFIG.replace("round_retries = 0", "round_retries = 2").replace("rounds = 2", "rounds = 1")
    )
    settings = {name: str(tmp_path / path) for name, path in (("config", "tiny.toml"), ("cache", "cache"))}
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        str(CHECKOUT),
        json.dumps(settings | {"data": str(data), "external": "external"}),
        str(tmp_path / "run"),
    ]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    yield child
    child.kill()
    child.wait()
    child.stderr.close()


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(number) for number in text.split()]


def training(run: subprocess.Popen, out: Path) -> tuple[list[int], list[int]]:
    """Wait until sites train; the processes of the run, and of these the workers."""
    deadline = time.monotonic() + 600
    while True:
        assert time.monotonic() < deadline
        assert run.poll() is None, run.stderr.read()
        status = out / "status.json"
        if status.is_file() and json.loads(status.read_text())["state"] == "training":
            [fork_server] = children(run.pid)
            _server, *workers = sorted(children(fork_server))
            return [fork_server, _server, *workers], workers
        time.sleep(0.05)


def gone(pids: list[int]) -> bool:
    """Whether none of these is a process of a run any more."""
    found = []
    for pid in pids:
        path = Path(f"/proc/{pid}/environ")
        try:
            found += [pid] if MARK.encode() in path.read_bytes() else []
        except OSError:
            continue
    return not found


def test_workers_that_are_killed_are_named_with_their_site_and_the_run_goes_on(run, tmp_path):
    pids, workers = training(run, tmp_path / "run")
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert run.wait(600) == 0, run.stderr.read()
    [line] = json.loads((tmp_path / "run" / "report.json").read_text())["rounds"]
    assert line["sites"] == ["hospital-a", "hospital-b"]
    assert line["attempts"] > 1
    log = (tmp_path / "run" / "logs" / "run.log").read_text()
    assert "The worker that computed for hospital-a was ended by signal 9; a new one takes its place." in log
    assert gone(pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_the_run_leaves_no_process_behind(run, tmp_path, number):
    pids, _ = training(run, tmp_path / "run")
    run.send_signal(number)
    assert run.wait(300) != 0
    deadline = time.monotonic() + 300
    while not gone(pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
