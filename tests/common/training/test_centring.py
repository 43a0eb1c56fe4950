"""Mean features: measured in the first round, averaged over sites, taken off before the head."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.messages.round import SiteReply
from common.messages.update import Update
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.centring import mean_parts
from common.training.forward import embed, forward_batches
from common.training.local import train_round
from common.training.trainable import CENTRE, trained_names
from server.strategy.aggregation import aggregate, round_plan

TABLE = {
    "data": {"modalities": ["t1", "flair"], "slices": 2, "size": 32},
    "model": {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 1, "head_hidden": 0, "centre_features": True},
    "objective": {"local_crops": 0},
    "training": {"head_rounds": 3, "head_steps": 4, "batch_size": 4},
    "federation": {"rounds": 4, "strategy": {"name": "fedavgm", "server_learning_rate": 0.3}},
}


def made_up(name: str, patients: int, absent: int = 0) -> SiteData:
    generator = np.random.default_rng(patients)
    present = np.ones((patients, 2), bool)
    present[:absent, 1] = False
    images = generator.random((patients, 2, 2, 32, 32)).astype(np.float16)
    ids = tuple(f"{name}{i}" for i in range(patients))
    return SiteData(name, ids, images * present[:, None, :, None, None], present, np.arange(patients) % 3, name)


def embeddings(trained: TrainedModel, patients: SiteData) -> np.ndarray:
    return torch.cat(list(forward_batches(trained, patients, embed))).numpy()


def test_a_federation_takes_off_the_mean_of_all_its_patients_whatever_the_server_learns_by() -> None:
    config = config_from_table(TABLE)
    model, sites = build_model(config), [made_up("a", 5), made_up("b", 9)]
    start = get_arrays(model)
    replies = {}
    for site in sites:
        update = train_round(model, start, site, config, round_number=1, site_seed=1)
        changed = {name for name in start if not np.array_equal(update.arrays[name], start[name])}
        assert changed == {CENTRE} == set(trained_names(start, config, 1))
        assert np.abs(update.arrays[CENTRE]).max() <= 1  # what a secure round can carry
        replies[site.name] = SiteReply(
            site.name,
            1,
            update=Update.between(update.arrays, start),
            patients=update.patients,
            labelled=update.labelled,
            counts_shared=True,
        )
    state = config.federation.strategy.init(start)
    arrays, _, _ = aggregate(round_plan(config.federation, config, 1), state, start, replies)
    before = np.concatenate([embeddings(TrainedModel(model, start, config), site) for site in sites])
    after = np.concatenate([embeddings(TrainedModel(model, arrays, config), site) for site in sites])
    np.testing.assert_allclose(after, before - before.mean(0), atol=2e-4)
    for number in (2, 3, 4):
        assert CENTRE not in trained_names(start, config, number)
        assert round_plan(config.federation, config, number).strategy is config.federation.strategy


def test_an_absent_modality_stays_zero() -> None:
    config = config_from_table(TABLE)
    model, site = build_model(config), made_up("a", 6, absent=2)
    update = train_round(model, get_arrays(model), site, config, round_number=1, site_seed=1)
    after = embeddings(TrainedModel(model, update.arrays, config), site).reshape(6, 3, -1)
    assert not after[:2, 2].any()
    assert after[2:, 2].any()
    np.testing.assert_allclose(after[2:, 2].mean(0), 0, atol=2e-4)


def test_the_mean_of_a_part_is_that_of_the_patients_who_have_it() -> None:
    generator = np.random.default_rng(0)
    present = np.array([[True, False, False], [True, True, False], [False, True, False]])
    parts = generator.random((3, 4, 5)).astype(np.float32)
    found = mean_parts(parts, present)
    np.testing.assert_allclose(found[0], parts[:, 0].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found[1], (parts[0, 1] + parts[1, 1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(found[2], (parts[1, 2] + parts[2, 2]) / 2, rtol=1e-6)
    np.testing.assert_allclose(found[3], (found[1] + found[2]) / 2)  # nobody has it: as the other modalities


WITHOUT_DINO = {"terms": {name: {"weight": 0.0} for name in ("dino", "ibot", "koleo")}, "local_crops": 0}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"training": {"head_rounds": 1}}, "head_rounds of 2 or more"),
        ({"site_level": {"enabled": True}}, "cannot run with site_level.enabled"),
        ({"privacy": {"enabled": True}, "objective": WITHOUT_DINO}, "cannot run with privacy.enabled"),
    ],
)
def test_means_that_nothing_would_measure_or_noise_are_refused(changed: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        config_from_table({**TABLE, **changed})


def test_a_model_without_it_is_what_it_was() -> None:
    config = config_from_table(TABLE)
    without = replace(config, model=replace(config.model, centre_features=False))
    arrays, plain = get_arrays(build_model(config)), get_arrays(build_model(without))
    assert arrays.keys() - plain.keys() == {CENTRE}
    assert all(np.array_equal(arrays[name], plain[name]) for name in plain)
    assert _first_round(without) != {CENTRE}


def _first_round(config: RunConfig) -> set[str]:
    return set(trained_names(get_arrays(build_model(config)), config, 1))
