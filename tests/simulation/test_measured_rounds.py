"""Rounds that measure and do not train, in whole federations, under every rule that aggregates: a pooling that masks teach, then
the mean features. No rule takes what is measured for a gradient, and none takes hospitals without masks for hospitals that fail.
"""

from dataclasses import replace

import numpy as np
import pytest

from common.aggregation.registry import AGGREGATORS
from common.config.run import RunConfig, config_from_table
from common.data.dataset import WHOLE, SiteData
from common.models.arrays import Arrays
from common.models.build import build_model
from common.training.local import train_round
from common.training.trainable import CENTRE, HEAD
from simulation.in_process import rounds

SITES = 7  # what Bulyan needs
QUERY = "pool.query"
TABLE: dict[str, dict[str, object]] = {
    "data": {"modalities": ["t1", "flair"], "slices": 1, "size": 32},
    "model": {
        "backbone": "fedmri_vit_mini",
        "weights": "random",
        "blocks": 1,
        "head_hidden": 0,
        "pooling": "guided",
        "centre_features": True,
    },
    "objective": {"local_crops": 0},
    "training": {"head_rounds": 3, "head_steps": 1},
    "federation": {"rounds": 3},
}


def configured(strategy: str) -> RunConfig:
    return config_from_table(TABLE | {"federation": {"rounds": 3, "min_sites": SITES, "strategy": strategy}})


def site(number: int, masked: bool) -> SiteData:
    generator = np.random.default_rng(number)
    images = generator.random((3, 1, 2, 32, 32)).astype(np.float16)
    lesions = np.zeros((3, 1, 32, 32), np.uint8)
    if masked:
        lesions[:, :, 8:24, 8:24] = WHOLE
        images[:, :, :, 8:24, 8:24] += 1
    ids = tuple(f"{number}-{i}" for i in range(3))
    return SiteData(f"s{number}", ids, images, np.ones((3, 2), bool), np.arange(3), f"s{number}", lesions=lesions)


def federation(strategy: str, masked: int) -> list[Arrays]:
    config = configured(strategy)
    return list(rounds(build_model(config), {f"s{n}": site(n, n < masked) for n in range(SITES)}, config))


@pytest.mark.parametrize("strategy", sorted(AGGREGATORS))
def test_without_a_mask_the_pooling_stays_the_mean_and_the_run_goes_on(strategy: str) -> None:
    fitted, centred, headed = federation(strategy, masked=0)
    assert not fitted[QUERY].any()
    assert not fitted[CENTRE].any()
    assert centred[CENTRE].any()
    assert any((headed[name] != centred[name]).any() for name in headed if name.startswith(HEAD))


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam", "fedyogi"])
def test_the_pooling_is_the_mean_of_the_sites_whatever_the_server_learns_by(strategy: str) -> None:
    config, model = configured(strategy), build_model(configured(strategy))
    fitted, _, headed = federation(strategy, masked=SITES)
    start = next(iter(rounds(model, {"s0": site(0, False)}, config)))  # nothing fitted: as they were
    own = [train_round(model, start, site(n, True), config, round_number=1, site_seed=0).arrays[QUERY] for n in range(SITES)]
    np.testing.assert_allclose(fitted[QUERY], np.mean(own, 0), atol=1e-5)
    np.testing.assert_array_equal(headed[QUERY], fitted[QUERY])


def test_patients_who_were_opened_without_their_masks_are_no_patients_without_masks() -> None:
    config = configured("fedavg")
    blind = replace(site(0, True), lesions=None)
    with pytest.raises(ValueError, match="opened without"):
        list(rounds(build_model(config), {"s0": blind}, config))
