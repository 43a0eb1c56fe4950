"""A whole run with a self-supervised round, two head rounds and a tuning round, one of its two sites without any label."""

import json

import numpy as np
import pytest

from client.round import train as training
from client.round.train import site_seed
from common.models.arrays import get_arrays, load_arrays
from common.models.build import build_model
from common.training.local import train_round
from server.run.federate import federate
from tests.server.made_up_sites import hospital, plan, site_nodes

LABELS = {"a": (0, 1, 2, -1, 0, 1), "b": (-1, -1)}
TRAINING = {"ssl_rounds": 1, "head_rounds": 2, "head_steps": 2, "batch_size": 4, "precision": "fp32"}


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True])
def test_each_round_changes_what_it_should_and_labels_do_not_weigh_in_the_first(
    folder, tmp_path, local_grid, monkeypatch, secure
):
    monkeypatch.setattr(training, "open_site", lambda site, *_, **__: hospital(site.name, LABELS[site.name]))
    out, sections = tmp_path / "run", {"training": TRAINING, "secure": {"enabled": secure}}
    weight = 0.25 if secure else 0.0  # who weighs nothing may not stand in a secure sum
    chosen = plan(folder, out, ("a", "b"), sections=sections, rounds=4, unlabelled_weight=weight)
    federate(local_grid(site_nodes()), chosen)
    model = build_model(chosen.config)
    start = get_arrays(model)
    after = [start, *(load_arrays(out / "checkpoints" / f"round-{number:04d}.safetensors")[0] for number in range(1, 5))]

    def moved(number):
        return {name for name in start if not np.array_equal(after[number - 1][name], after[number][name])}

    assert "head.prototypes" not in moved(1)
    assert {"head.patient.weight", "head.patch.weight", "mask_token", "modality_embedding"} < moved(1)
    for number in (2, 3):
        assert moved(number)
        assert all(name.startswith("head.") for name in moved(number))
    assert {"head.prototypes", "mask_token"} < moved(4)
    of_sites = [
        train_round(
            model, start, hospital(name, labels), chosen.config, round_number=1, site_seed=site_seed(chosen.config.seed, name, 1)
        ).arrays
        for name, labels in LABELS.items()
    ]
    for name, array in after[1].items():
        mean = (6 * of_sites[0][name].astype(np.float64) + 2 * of_sites[1][name]) / 8
        np.testing.assert_allclose(array, mean, atol=1e-5)
    rounds = json.loads((out / "report.json").read_text())["rounds"]
    assert [line["round"] for line in rounds] == [1, 2, 3, 4]
    if not secure:
        assert [line["train"]["classification"] > 0 for line in rounds] == [False, True, True, True]
