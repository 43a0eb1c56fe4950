"""Two Ray nodes on the loopback: the work of one machine is done by both, to the same bytes, and the cluster goes on."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.config.run import load_config
from common.deployment.flower_cli import free_port, program
from common.errors import DataError, FederationError
from simulation import cluster_check, engines
from simulation.baselines import plan_baselines, run_baselines, run_job
from simulation.cluster import Cluster, connected
from simulation.cluster_check import require_alike
from simulation.phantom.hospitals import write_hospitals
from simulation.processes import as_they_end, side_by_side
from tests.integration.test_flwr_run import CHECKOUT, CONFIG, ours

pytestmark = pytest.mark.thorough

NODE = ["--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--num-gpus", "0", "--object-store-memory", "100000000", "--block"]


def start_node(folder: Path, name: str, *arguments: str) -> subprocess.Popen:
    """One machine, which ends with its process."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "FEDMRI_TEST": str(os.getpid())}
    with (folder / f"{name}.log").open("wb") as log:
        command = [program("ray"), "start", *arguments, *NODE]
        return subprocess.Popen(command, env=os.environ | quiet, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def started(node: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 300
    while b"Ray runtime started" not in log.read_bytes():
        assert node.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster():
    """Two machines of one core each. Ray's sockets have at most 107 characters: hence a folder of a short name."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    port = free_port()
    nodes = []
    try:
        for name, where in (
            ("head", ["--head", "--port", str(port), "--temp-dir", str(folder / "r"), "--include-dashboard=false"]),
            ("second", ["--address", f"127.0.0.1:{port}"]),
        ):
            nodes.append(start_node(folder, name, *where))
            started(nodes[-1], folder / f"{name}.log")
        yield Cluster(f"127.0.0.1:{port}")
    finally:
        for node in reversed(nodes):
            node.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(60)
            node.kill()
            node.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def goes_on(cluster, monkeypatch):
    """Whatever a test does: afterwards all of the cluster is free again, and nothing of a run is left."""
    monkeypatch.setenv("FEDMRI_TEST", str(os.getpid()))
    yield
    assert ours() == set()
    with connected(cluster) as ray:
        deadline = time.monotonic() + 120
        while ray.available_resources().get("CPU") != 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@dataclass(frozen=True)
class Waiting:
    """A job that ends when the file is there."""

    name: str
    folder: Path
    until: str


def node_and_process(job: Waiting) -> tuple[str, int]:
    """Where a job is done."""
    (job.folder / job.name).write_text(str(os.getpid()))
    while not (job.folder / job.until).exists():
        time.sleep(0.05)
    import ray

    return ray.get_runtime_context().get_node_id(), os.getpid()


def fail(job: Waiting) -> None:
    raise DataError(f"{job.name}: nothing there.")


def test_jobs_run_on_both_machines_at_once(cluster, tmp_path):
    jobs = [Waiting("a", tmp_path, "b"), Waiting("b", tmp_path, "a")]  # each waits for the other
    done: list[str] = []
    found = side_by_side(node_and_process, jobs, cluster, done.append)
    assert list(found) == ["a", "b"]
    assert sorted(done) == ["a", "b"]
    assert found["a"][0] != found["b"][0]


def test_whoever_stops_asking_ends_the_jobs(cluster, tmp_path):
    with closing(
        as_they_end(node_and_process, [Waiting("endless", tmp_path, "never"), Waiting("quick", tmp_path, "quick")], cluster)
    ) as ended:
        job, _ = next(ended)
        assert job.name == "quick"
        while not (tmp_path / "endless").exists():
            time.sleep(0.05)
    pid = (tmp_path / "endless").read_text()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_jobs_own_error_comes_as_it_is(cluster, tmp_path):
    with pytest.raises(DataError, match=r"^a: nothing there\.$"):
        side_by_side(fail, [Waiting("a", tmp_path, "a")], cluster)


def test_machines_that_differ_are_refused_by_name_and_nothing_is_left(cluster, tmp_path, monkeypatch):
    require_alike(cluster, [tmp_path], tmp_path / "out" / "run")
    monkeypatch.setattr(cluster_check, "checkout_hash", lambda: "another")
    with pytest.raises(
        FederationError, match=r"Ray's node [0-9.]+:[0-9]+ differs .*FedMRI's code: [0-9a-f]{12} there, another here"
    ):
        require_alike(cluster, [tmp_path], tmp_path / "out" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_federation_and_its_baselines_are_those_of_one_machine(cluster, tmp_path):
    write_hospitals(tmp_path / "data", sites=2, patients=2, external=2, seed=1)
    (tmp_path / "tiny.toml").write_text(CONFIG)
    settings = {name: str(tmp_path / path) for name, path in (("config", "tiny.toml"), ("cache", "cache"), ("data", "data"))}
    settings |= {"external": "external"}
    engines.run_federation("pool", CHECKOUT, settings, 2, tmp_path / "pool")
    told: list[dict] = []
    engines.run_federation("ray", CHECKOUT, settings, 2, tmp_path / "ray", on_round=told.append, cluster=cluster)
    assert [line["round"] for line in told] == [1, 2]
    for name in ("model.safetensors", "checkpoints/round-0001.safetensors"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "pool" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "ray" / "logs").iterdir()) == ["run.log", "superlink.log"]
    config, cache = load_config(tmp_path / "tiny.toml", ()), tmp_path / "cache"
    folders = ["hospital-a", "hospital-b"], ["external"]
    here, there = (plan_baselines(tmp_path / "data", *folders, config, cache, tmp_path / name)[1] for name in ("here", "there"))
    found = run_baselines([there], cluster)
    assert found["hospital-a"].tobytes() == run_job(here).tobytes()
    name = "hospital-a.safetensors"
    assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
