"""SCAFFOLD's control variate at a site: kept whole, used by the next round alone, the same when a round is played again."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.round import train as training
from client.round.site_context import SiteContext
from client.round.site_memory import KEPT, memory_folder, recall, remember
from client.round.train import train_site
from common.config.run import config_from_json, config_from_table
from common.config.site import SiteConfig, SitePolicy
from common.data.cases import Site
from common.messages.code_version import code_hash
from common.messages.round import SiteReply, Task, pack_arrays, write_task
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.training.scaffold import LastRound
from tests.server.made_up_sites import hospital

CONFIG = config_from_table(
    {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "rank": 2, "head_hidden": 8, "head_bottleneck": 4},
        "objective": {"local_crops": 0},
        "training": {"batch_size": 2, "precision": "fp32", "warmup_rounds": 0},
        "federation": {"rounds": 3, "strategy": "scaffold"},
    }
)


def arrays(value: float) -> Arrays:
    return {"b": np.full(2, value, np.float32), "a": np.full((1, 3), value, np.float32)}


def test_what_is_remembered_is_recalled(tmp_path) -> None:
    folder = memory_folder(tmp_path, "run")
    for number in range(1, KEPT + 3):
        remember(folder, number, LastRound(arrays(number), arrays(-number)))
    assert len(list(folder.iterdir())) == KEPT
    last = recall(folder, KEPT + 2, arrays(0))
    assert last is not None
    assert last.received["b"].tolist() == [KEPT + 2] * 2
    assert last.own["a"].tolist() == [[-KEPT - 2] * 3]
    assert recall(folder, 1, arrays(0)) is None  # long past


def test_what_is_not_there_or_damaged_is_said_and_not_used(tmp_path, caplog) -> None:
    folder = memory_folder(tmp_path, "run")
    assert recall(folder, 0, arrays(0)) is None
    assert not caplog.records  # before the first round there is nothing to miss
    with caplog.at_level(logging.WARNING):
        assert recall(folder, 3, arrays(0)) is None
        remember(folder, 3, LastRound(arrays(1), arrays(2)))
        assert recall(folder, 3, {"other": np.zeros(2, np.float32)}) is None
        file = next(folder.iterdir())
        file.write_bytes(file.read_bytes()[:-1])
        assert recall(folder, 3, arrays(0)) is None
    assert [("no record of round 3" in r.message, "damaged" in r.message) for r in caplog.records] == [
        (True, False),
        (False, True),
        (False, True),
    ]


@pytest.mark.parametrize("run", ["../../etc", "..", "", "/tmp/x"])
def test_a_runs_name_leads_nowhere_else(tmp_path, run) -> None:
    assert memory_folder(tmp_path, run).parent == tmp_path / "scaffold"
    assert memory_folder(tmp_path, run).name.isalnum()


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A function that trains one round at a site in memory."""
    training._simulated_patients.cache_clear()
    monkeypatch.setattr(
        training, "read_site", lambda path, *_, **__: Site("a", path, (), SiteConfig(policy=SitePolicy.simulation()))
    )
    monkeypatch.setattr(training, "open_site", lambda *_, **__: hospital("a", (0, 1, 2, -1)))
    model = build_model(CONFIG)

    def once(number: int, sent: Arrays, strategy: str = "scaffold", cache: Path = tmp_path / "cache") -> SiteReply:
        text = CONFIG.to_json().replace('"scaffold"', f'"{strategy}"')
        task = Task(number, config_from_json(text).to_json(), code_hash(), model.backbone_sha256, "run", "a")
        context = SiteContext("a", tmp_path, cache, simulated=True)
        return train_site(write_task(task, pack_arrays(sent)), task, context)[0]

    yield once
    training._simulated_patients.cache_clear()


def bytes_of(reply: SiteReply) -> list[bytes]:
    return [array.tobytes() for _, array in sorted(reply.update.change.items())]


@pytest.mark.slow
def test_the_second_round_is_corrected_by_the_first_and_again_the_same_when_played_again(train, tmp_path) -> None:
    first_arrays = get_arrays(build_model(CONFIG))
    first = train(1, first_arrays)
    assert bytes_of(first) == bytes_of(train(1, first_arrays, "fedavg"))  # of a first round nothing is known
    alone = {name: array + first.update.change[name] for name, array in first_arrays.items()}
    of_one = train(2, alone, "fedavg").update.change  # a federation of one has nothing to correct
    for name, change in train(2, alone).update.change.items():
        np.testing.assert_allclose(change, of_one[name], rtol=0, atol=1e-5)
    others = {name: array + 2 * first.update.change[name] for name, array in first_arrays.items()}
    second = train(2, others)
    assert bytes_of(second) != bytes_of(train(2, others, "fedavg"))
    assert bytes_of(train(2, others)) == bytes_of(second)
    assert bytes_of(train(2, others, cache=tmp_path / "new")) == bytes_of(train(2, others, "fedavg"))  # it was not in round 1


def test_a_hospitals_lies_beside_its_ledger(tmp_path) -> None:
    home = SiteContext("a", tmp_path / "site.toml", tmp_path / "cache", simulated=False)
    assert training._memory(home, "run").parent == tmp_path / "scaffold"
    assert training._memory(replace(home, simulated=True), "run").parent == tmp_path / "cache" / "scaffold"
