"""Protocols that train: what each trains, by whom its rate and epoch are chosen, and that it trains as the pooled baseline."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.config.run import RunConfig, load_config
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from simulation.baselines import train_alone
from simulation.protocols import tuned
from simulation.protocols.tuned import TUNED, Tuning, choose, train, tuned_answer, tuned_config

CONFIG = """
[data]
size = 32
slices = 1
[model]
backbone = "fedmri_vit_mini"
weights = "random"
blocks = 1
joint_blocks = 1
head = "linear"
head_hidden = 0
[objective]
local_crops = 0
[training]
head_rounds = 1
head_steps = 5
"""
TUNING = Tuning(epochs=2, rates=(1e-3, 1e-2))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    file = tmp_path_factory.mktemp("tuned") / "tiny.toml"
    file.write_text(CONFIG)
    return load_config(file, ())


@pytest.fixture(scope="module")
def patients() -> SiteData:
    images = np.random.default_rng(3).random((9, 1, 4, 32, 32)).astype(np.float16)
    ids = tuple(f"sub-{number}" for number in range(9))
    return SiteData("made", ids, images, np.ones((9, 4), bool), np.arange(9) % 3, "key")


def of_blocks(name: str) -> bool:
    return name.startswith("vit.blocks.")


@pytest.mark.parametrize(("name", "counted"), [("bitfit", of_blocks), ("full", lambda name: name.startswith("vit."))])
def test_what_is_trained_is_what_the_name_says(name: str, counted: Any, config: RunConfig) -> None:
    own = tuned_config(config, TUNED[name][1], 1e-3, 1)
    model = build_model(own)
    head = sum(p.numel() for n, p in model.named_parameters() if n.startswith("head.") and "patch" not in n)
    last = [
        n
        for n, p in model.named_parameters()
        if counted(n) and (name == "full" or (n.startswith("vit.blocks.4") and "bias" in n))
    ]
    expected = head + sum(model.get_parameter(n).numel() for n in last)
    assert tuned.trained_values(get_arrays(model), own) == expected
    assert [term.name for term in own.objective.running()] == ["classification"]


def test_training_is_that_of_the_pooled_baseline(patients: SiteData, config: RunConfig) -> None:
    own = tuned_config(config, TUNED["lora"][1], 1e-2, 2)
    *_, arrays = train(patients, own, 2)
    expected = train_alone(patients, own, "pooled")[-1]
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[name], expected[name]) for name in arrays)
    start = get_arrays(build_model(own))
    moved = {name for name in arrays if not np.array_equal(arrays[name], start[name])}
    assert any("lora_b" in name for name in moved)
    assert not any(name.startswith(("modality_embedding", "mask_token")) or "norm" in name for name in moved)


def test_rate_and_epoch_are_chosen_on_patients_that_the_first_training_did_not_see(
    patients: SiteData, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest class-balanced log-loss of all, by hand; the last training is of everybody, for as long as was best."""
    trained, asked, losses = [], [], {}

    def spy_train(training: SiteData, own: RunConfig, epochs: int) -> Iterator[Arrays]:
        trained.append((set(training.ids), own.training.learning_rate, epochs))
        return train(training, own, epochs)

    def spy_predict(model: TrainedModel, held: SiteData) -> np.ndarray:
        said = predict(model, held)
        asked.append(set(held.ids))
        each = [-np.log(said[held.labels == c, c]).mean() for c in np.unique(held.labels)]
        losses[model.config.training.learning_rate, sum(m == asked[-1] for m in asked)] = float(np.mean(each))
        return said

    monkeypatch.setattr(tuned, "train", spy_train)
    monkeypatch.setattr(tuned, "predict", spy_predict)
    rate, epoch, how = choose("head", patients, config, TUNING)
    rest, held = trained[0][0], asked[0]
    assert rest | held == set(patients.ids)
    assert not rest & held
    assert all(one[0] == rest for one in trained)
    assert all(one == held for one in asked)
    best = min(losses, key=losses.__getitem__)
    assert (rate, epoch) == (best[0], (best[1] - 1) % 2 + 1)
    assert how == f"by {len(held)} of the training patients"
    trained.clear()
    answer = tuned_answer("head", patients, patients.select([0, 1]), config, TUNING)
    assert trained[-1] == (set(patients.ids), rate, epoch)
    assert answer.probabilities.shape == (1, 2, 3)
    np.testing.assert_allclose(answer.probabilities.sum(2), 1)


def test_where_nothing_can_be_chosen_it_is_said(patients: SiteData, config: RunConfig) -> None:
    rare = replace(patients, labels=np.array([0, 0, 0, 0, 1, 1, 1, 1, 2]))
    assert choose("head", rare, config, TUNING) == (1e-3, 2, "fixed: a class has one patient")


def test_from_end_to_end_the_rates_are_a_tenth() -> None:
    assert TUNING.rates_of("full") == [1e-4, 1e-3]
    assert TUNING.rates_of("lora") == TUNING.rates_of("head") == [1e-3, 1e-2]


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"rates": ()}, {"rates": (0.0,)}, {"rates": (2.0,)}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong))}"):
        Tuning(**wrong)
