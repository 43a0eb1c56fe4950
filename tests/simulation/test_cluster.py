"""A Ray cluster's shares and address, without a cluster; tests/integration/test_cluster.py has two machines."""

import os
import socket

import pytest

from common.errors import ConfigError, FederationError
from simulation import cli, cluster, cluster_check, superlink
from simulation.cluster import Cluster, Share, require_reachable, shares
from simulation.engines import cluster_for
from simulation.experiment_plan import Experiment
from simulation.flower import run_federation


@pytest.fixture
def silent():
    """An address at which somebody listens and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def closed():
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("nodes", "wanted", "share"),
    [
        ([(1, 0), (1, 0)], 3, Share(1, 0.0)),
        ([(64, 0), (16, 0)], 5, Share(16, 0.0)),  # 4 and 1
        ([(64, 0), (16, 0)], 6, Share(12, 0.0)),  # 5 and 1
        ([(64, 0), (16, 0)], 1000, Share(1, 0.0)),
        ([(8, 4)], 3, Share(2, 1.0)),  # four fit, and three of 3 cores would not have more of the GPUs
        ([(8, 2)], 8, Share(1, 0.25)),
        ([(9, 3), (32, 0)], 9, Share(1, 0.333)),  # those without a GPU have no part
    ],
)
def test_shares_are_equal_and_the_largest(nodes, wanted, share):
    assert shares(nodes, wanted) == share
    at_once = sum(
        min(int(cores / share.cores), int(gpus / share.gpus) if share.gpus else 10**6) for cores, gpus in nodes
    )  # as Ray counts
    assert at_once >= min(wanted, sum(cores for cores, _ in nodes))


@pytest.mark.parametrize("address", ["", "somewhere", "host:", ":6379", "ray://host:10001", "host:6379/x", "a host:6379", "auto"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ConfigError, match="--address: expected HOST:PORT"):
        Cluster(address)


def test_an_address_is_refused_without_ray():
    assert cluster_for("pool", None) is None
    assert cluster_for("ray", "host:6379") == Cluster("host:6379")
    with pytest.raises(ConfigError, match=r"--address .* --engine pool"):
        cluster_for("pool", "host:6379")


@pytest.mark.parametrize("verb", ["run", "cross-site"])
def test_commands_refuse_an_address_without_ray_by_name(verb, tmp_path, capsys):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "b").mkdir()
    for folder in ("a", "b"):
        (tmp_path / "data" / folder / "participants.tsv").write_text("participant_id\n")
    out = ["--external", "a"] if verb == "run" else []
    arguments = [verb, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--address", "host:1", *out]
    assert cli.main(arguments) != 0
    assert "--address" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nobody_there_is_one_sentence(closed, silent, monkeypatch):
    monkeypatch.setattr(cluster, "REACH_SECONDS", 0.5)
    for address in (closed, silent):
        with pytest.raises(FederationError, match=rf"--address {address}: no Ray cluster answers there"):
            require_reachable(Cluster(address))


def test_nothing_is_written_where_no_cluster_answers(closed, tmp_path):
    with pytest.raises(FederationError, match="no Ray cluster answers"):
        run_federation(tmp_path, {}, 2, tmp_path / "run", cluster=Cluster(closed))
    with pytest.raises(FederationError, match="no Ray cluster answers"):
        cluster_check.require_alike(Cluster(closed), [tmp_path], tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_ray_is_told_of_the_cluster_and_of_no_folder_for_sockets(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "another:1")
    alone = superlink._environment(tmp_path, tmp_path, "mark", None)
    assert "RAY_ADDRESS" not in alone
    joined = superlink._environment(tmp_path, tmp_path, "mark", Cluster("host:1"))
    assert joined["RAY_ADDRESS"] == "host:1"
    assert joined.get("RAY_TMPDIR") == os.environ.get("RAY_TMPDIR")


def test_baselines_run_where_the_federation_does():
    fields = dict.fromkeys(Experiment.__dataclass_fields__)
    assert Experiment(**fields | {"cluster": Cluster("host:1")}).workers == Cluster("host:1")
    assert Experiment(**fields).workers == os.cpu_count()


def test_a_folder_is_told_by_its_names(tmp_path):
    data, gone = tmp_path / "data", tmp_path / "gone"
    data.mkdir()
    empty = cluster_check.facts((data, gone), None)
    assert empty[str(gone)] == "none"
    (data / "hospital").mkdir()
    assert cluster_check.facts((data, gone), None)[str(data)] != empty[str(data)]


def test_the_token_of_another_folder_is_another(tmp_path):
    told = [cluster_check.facts((), tmp_path)["the folder of the results"]]
    for token in ("a", "b"):
        (tmp_path / cluster_check.TOKEN).write_text(token)
        told.append(cluster_check.facts((), tmp_path)["the folder of the results"])
    assert told == ["none", "a", "b"]
