"""Rounds that train findings: what is known teaches, what is unknown does not, and what can be learned is learned."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.data.holdout import split
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.ternary import NO, UNKNOWN, YES, encode
from common.training.local import train_round
from common.training.predict import predict
from simulation.in_process import rounds


def config_of(**changes: dict[str, Any]) -> RunConfig:
    table: dict[str, dict[str, Any]] = {
        "data": {"size": 32, "slices": 2, "modalities": ["t1", "flair"]},
        "task": {"name": "findings", "findings": ["left", "right"]},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "head": "linear", "head_hidden": 0, "prototypes": 8},
        "objective": {
            "local_crops": 0,
            "global_scale": 1.0,
            "modality_dropout": 0.0,
            "masked_modalities": "none",
            "terms": {
                "findings": {"weight": 1.0},
                "classification": {"weight": 0.0},
                "dino": {"weight": 0.0},
                "ibot": {"weight": 0.0},
                "koleo": {"weight": 0.0},
            },
        },
        "training": {"batch_size": 8, "precision": "fp32", "warmup_rounds": 0, "head_rounds": 1, "head_steps": 150},
        "federation": {"rounds": 2},
        "evaluation": {"every": 0},
    }
    return config_from_table({name: {**table.get(name, {}), **changes.get(name, {})} for name in table.keys() | changes.keys()})


def site_of(patients: int = 24, *, known: tuple[bool, bool] = (True, True), seed: int = 0) -> tuple[SiteData, np.ndarray]:
    """Bright above and bright below, each by itself; and what is true [N, 2]."""
    generator = np.random.default_rng(seed)
    truth = generator.random((patients, 2)) < 0.5
    images = generator.random((patients, 2, 2, 32, 32)) * 0.2
    images[:, :, 0, :16] += 0.7 * truth[:, 0, None, None, None]
    images[:, :, 1, :16] += 0.7 * truth[:, 1, None, None, None]
    answers = [[(YES if one else NO) if k else UNKNOWN for one, k in zip(row, known, strict=True)] for row in truth]
    labels = np.array([encode(row) for row in answers], np.int64)
    ids = tuple(f"sub-{n}" for n in range(patients))
    return SiteData("site", ids, images.astype(np.float16), np.ones((patients, 2), bool), labels, "key"), truth


def test_what_can_be_learned_is_learned_and_labels_travel_with_their_patients() -> None:
    config = config_of()
    (site, _), (other, truth) = site_of(), site_of(40, seed=9)
    pooled = SiteData.pool([site.select(range(12)), site.select(range(12, 24))], "two")
    assert pooled.labels.tolist() == site.labels.tolist() == pooled.take(range(24)).labels.tolist()
    training, held = split(site, 0.3)
    assert sorted([*training.labels, *held.labels]) == sorted(site.labels)
    model = build_model(config)
    update = train_round(model, get_arrays(model), pooled, config, round_number=1, site_seed=3)
    said = predict(TrainedModel(model, update.arrays, config), other)
    assert update.labelled == 24
    assert [roc_auc_score(truth[:, f], said[:, f]) for f in range(2)] == pytest.approx([1.0, 1.0], abs=0.05)
    assert not np.allclose(said.sum(1), 1)  # no softmax


def test_a_site_where_a_finding_is_unknown_leaves_its_output_alone() -> None:
    """By the arrays of the head's output for it, which nothing else moves: the optimizer's weight decay is off."""
    config = config_of(training={"weight_decay": 0.0, "batch_size": 8, "precision": "fp32", "warmup_rounds": 0})
    site, _ = site_of(known=(True, False))
    model = build_model(config)
    start = get_arrays(model)
    update = train_round(model, start, site, config, round_number=1, site_seed=3)
    moved = {name: update.arrays[name] - array for name, array in start.items() if name.startswith("head.")}
    rows = {name: np.abs(change).reshape(len(change), -1).max(1) for name, change in moved.items() if len(change) == 10}
    assert rows
    assert all(change[1] == 0 for change in rows.values())
    assert any(change[0] > 0 for change in rows.values())


def test_sites_that_know_different_findings_teach_one_model() -> None:
    """One knows the first finding, the other the second; the average tells both."""
    config = config_of(federation={"rounds": 1})
    sites = {"a": site_of(known=(True, False))[0], "b": site_of(known=(False, True), seed=5)[0]}
    model, (other, truth) = build_model(config), site_of(40, seed=9)
    [arrays] = rounds(model, sites, config)
    said = predict(TrainedModel(model, arrays, config), other)
    assert min(roc_auc_score(truth[:, f], said[:, f]) for f in range(2)) > 0.9
