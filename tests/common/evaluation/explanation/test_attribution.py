"""Evidence against naive loops over modalities and patches, in float64."""

import numpy as np
import pytest
import torch

from common.config.run import config_from_table
from common.data.dataset import SiteData
from common.evaluation.calibration.calibration import Scaling, apply_temperature
from common.evaluation.explanation.attribution import modality_evidence, place_evidence
from common.models.arrays import get_arrays, set_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.predict import predict

PRESENT = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0]], bool)


@pytest.fixture(scope="module", params=[(0, "mean"), (24, "mean"), (0, "centre"), (0, "attention")])
def trained(request):
    """Configuration, model, trained-looking arrays and three patients; with and without a hidden layer; by pooling."""
    hidden, pooling = request.param
    section = {"backbone": "fedmri_vit_mini", "weights": "random", "rank": 2, "head_hidden": hidden, "prototypes": 3}
    section["pooling"] = pooling
    config = config_from_table({"data": {"size": 32, "slices": 2}, "model": section, "evaluation": {"batch_size": 2}})
    model, rng = build_model(config), np.random.default_rng(0)
    arrays = {n: (a + rng.normal(0, 0.05, a.shape)).astype(np.float32) for n, a in get_arrays(model).items()}
    if pooling == "attention":
        arrays["pool.query"] *= 20  # such that weights differ
    images = (rng.random((3, 2, 4, 32, 32)) * PRESENT[:, None, :, None, None]).astype(np.float16)
    return config, model, arrays, SiteData("x", ("a", "b", "c"), images, PRESENT, np.full(3, -1), "")


def score(model, token, p):
    """How much a token counts, up to a factor that all share."""
    if model.pooling.name == "attention":
        normed = (token - token.mean()) / torch.sqrt(token.var(unbiased=False) + 1e-5)
        return float(torch.exp(normed @ model.pool["query"].double() / len(token) ** 0.5))
    inner = p // 4 in (1, 2) and p % 4 in (1, 2)
    return float(inner or model.pooling.name == "mean")


def logits_without(model, cls, patches, present, config, left_out=None):
    """Naive, in float64: pool by hand, one patch (s, m, p) left out, and the head's own layers."""
    parts = [cls.mean(0)]
    for m in range(patches.shape[1]):
        kept = [(s, p) for s in range(len(patches)) for p in range(patches.shape[2]) if (s, m, p) != left_out]
        scores = torch.tensor([score(model, patches[s, m, p], p) for s, p in kept], dtype=torch.float64)
        parts.append(scores @ torch.stack([patches[s, m, p] for s, p in kept]) / scores.sum())
    parts = [(v - v.mean()) / torch.sqrt(v.var(unbiased=False) + 1e-5) for v in parts]
    parts = [v if m == 0 or present[m - 1] else torch.zeros_like(v) for m, v in enumerate(parts)]
    head, z = model.head, torch.cat(parts)
    if head.hidden is not None:
        z = torch.nn.functional.gelu(head.hidden.weight.double() @ z + head.hidden.bias.double())
    z = head.patient.weight.double() @ z + head.patient.bias.double()
    prototypes = head.prototypes.double()[: len(config.task.classes)]
    return (prototypes / prototypes.norm(dim=1, keepdim=True)) @ (z / z.norm()) / config.objective.student_temperature


@torch.no_grad()
def test_places_agree_with_leaving_out_each_patch_by_hand(trained):
    config, model, arrays, patients = trained
    before = get_arrays(model)
    probabilities, places = place_evidence(TrainedModel(model, arrays, config), patients)
    assert all(np.array_equal(before[n], a) for n, a in get_arrays(model).items())  # lent, not written
    assert probabilities == pytest.approx(predict(TrainedModel(model, arrays, config), patients), abs=1e-7)
    own = build_model(config).eval()
    set_arrays(own, arrays)
    x, present, *_ = patients.take(range(3))
    cls, patches = own.features(x, present)
    assert places.shape == (3, 2, 4, 4, 4)
    for b in range(3):
        parts = cls[b].double(), patches[b].double(), present[b].tolist()
        whole = logits_without(own, *parts, config)
        winning = int(whole.argmax())
        for s, m, p in [(0, 0, 0), (0, 2, 15), (1, 3, 6), (1, 0, 9), (0, 3, 3)]:
            falls = float(whole[winning] - logits_without(own, *parts, config, (s, m, p))[winning]) if PRESENT[b, m] else 0.0
            assert places[b, s, m, p // 4, p % 4] == pytest.approx(falls, abs=2e-5, rel=1e-3)


def test_places_are_of_the_class_that_wins_with_the_offsets(trained):
    config, model, arrays, patients = trained
    opened = TrainedModel(model, arrays, config)
    raw, before = place_evidence(opened, patients)
    rest = np.flatnonzero(raw.argmax(1) != 2)
    _, places = place_evidence(opened, patients, scaling=Scaling(2.0, (0.0, 0.0, 15.0)))  # the third class wins for all
    assert len(rest)
    assert not np.allclose(places[rest], before[rest])
    assert np.allclose(places[raw.argmax(1) == 2], before[raw.argmax(1) == 2])


def test_modalities_agree_with_a_loop(trained):
    config, model, arrays, patients = trained
    calibrated = apply_temperature(predict(TrainedModel(model, arrays, config), patients), 2.0)
    found = modality_evidence(TrainedModel(model, arrays, config), patients, calibrated, scaling=Scaling(2.0))
    assert np.isnan(found).tolist() == [[False] * 4, [False, True, True, False], [True] * 4]
    for b, m in np.argwhere(np.isfinite(found)):
        left = PRESENT[b].copy()
        left[m] = False
        alone = SiteData("x", ("a",), patients.images[[b]], left[None], np.array([-1]), "")  # as if it had never been acquired
        without = apply_temperature(predict(TrainedModel(model, arrays, config), alone), 2.0)[0]
        winning = calibrated[b].argmax()
        assert found[b, m] == pytest.approx(calibrated[b, winning] - without[winning], abs=1e-6)
