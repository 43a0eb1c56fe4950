"""The audit of a whole round: it passes as the code is, and each planted fault makes the check fail that looks for it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client.privacy.canary_round import canary_round
from client.privacy.round_audit import FEW, check_rounds, without
from client.privacy.round_watch import watch
from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.privacy import noise, optimizer
from common.privacy.audit import LEAVES, MOVES, NOISES, OTHERS, ROUND, ROWS, SAW_NOTHING, Check
from common.privacy.charge import Charge
from common.training import private
from common.training.private_probing import Features

WEIGHTS = {"consistency": 0.3, "dino": 0.0, "ibot": 0.0, "koleo": 0.0}
CONFIG = config_from_table(
    {
        "data": {"size": 32, "slices": 2},
        "model": {
            "backbone": "fedmri_vit_mini",
            "weights": "random",
            "adapter": {"rank": 1},
            "head_hidden": 8,
            "head_bottleneck": 4,
        },
        "objective": {"local_crops": 0, "terms": {name: {"weight": weight} for name, weight in WEIGHTS.items()}},
        "training": {"precision": "fp32", "slices_per_step": 2, "head_rounds": 1},
        "federation": {"rounds": 2},
        "privacy": {"enabled": True, "max_grad_norm": 0.1, "sample_rate": 0.2, "noise_multiplier": 1.5},
    }
)
HEAD, TUNING = 1, 2


@pytest.fixture(scope="module")
def model() -> MultiModalViT:
    return build_model(CONFIG)


@pytest.fixture(scope="module")
def patients() -> SiteData:
    rng = np.random.default_rng(0)
    images = rng.random((12, 2, 4, 32, 32)).astype(np.float16)
    labels = np.array([0, 1, 2, -1] * 3, np.int64)
    return SiteData("du", tuple(map(str, range(12))), images, np.ones((12, 4), bool), labels, "round audit")


def failed(model: MultiModalViT, patients: SiteData, number: int, config: RunConfig = CONFIG) -> list[Check]:
    checks = check_rounds(model, patients, config, [number])
    assert [check.name for check in checks] == list(ROUND)
    return [check for check in checks if not check.passed]


@pytest.mark.parametrize("number", [HEAD, pytest.param(TUNING, marks=pytest.mark.slow)])
def test_the_round_as_it_is_passes(model: MultiModalViT, patients: SiteData, number: int) -> None:
    assert failed(model, patients, number) == []


def rate_and_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = vars(private)["system_sample"]
    monkeypatch.setattr(private, "system_sample", lambda count, rate: honest(count, min(1.0, 1.5 * rate)))


def features_centred(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = vars(private)["embed_patients"]

    def centred(*given: Any) -> Features:
        found = honest(*given)
        return found._replace(embeddings=found.embeddings - found.embeddings.mean(0, keepdim=True))

    monkeypatch.setattr(private, "embed_patients", centred)


def little_noise_for_small_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = noise.noised
    monkeypatch.setattr(optimizer, "noised", lambda total, std: honest(total, std / 10 if total.numel() < 64 else std))


def one_noise_for_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a step; the next has its own."""
    honest = optimizer.SystemNoiseOptimizer.add_noise

    def shared(self: Any) -> None:
        drawn: dict[tuple[int, ...], Tensor] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                optimizer,
                "noised",
                lambda total, std: total + drawn.setdefault(tuple(total.shape), noise.system_normal(tuple(total.shape), std)),
            )
            honest(self)

    monkeypatch.setattr(optimizer.SystemNoiseOptimizer, "add_noise", shared)


def a_mean_beside_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = vars(private)["local_round"]

    def told(point: Any, rule: Any, patients: SiteData, *given: Any, **more: Any) -> Any:
        update = honest(point, rule, patients, *given, **more)
        return replace(update, metrics=update.metrics | {"mean": float(np.asarray(patients.images).mean())})

    monkeypatch.setattr(private, "local_round", told)


def more_than_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = optimizer.SystemNoiseOptimizer.scale_grad

    def scaled(self: Any) -> None:
        self.expected_batch_size = len(self.grad_samples[0]) - 1
        honest(self)

    monkeypatch.setattr(optimizer.SystemNoiseOptimizer, "scale_grad", scaled)


def clipped_by_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = optimizer.SystemNoiseOptimizer.clip_and_accumulate

    def followed(self: Any) -> None:
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in self.grad_samples], 1).norm(dim=1)
        kept, self.max_grad_norm = self.max_grad_norm, min(self.max_grad_norm, float(norms.median()) if len(norms) else 1.0)
        honest(self)
        self.max_grad_norm = kept

    monkeypatch.setattr(optimizer.SystemNoiseOptimizer, "clip_and_accumulate", followed)


def weighted_by_class_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = vars(private)["head_gradients"]

    def weighted(model: Any, point: Any, features: Features, rows: Any, config: RunConfig) -> dict[str, Tensor]:
        found, labels = honest(model, point, features, rows, config), features.labels
        weights = torch.tensor([1.0 / int((labels == labels[row]).sum()) for row in rows])
        return {name: value * weights.view(-1, *[1] * (value.ndim - 1)) for name, value in found.items()}

    monkeypatch.setattr(private, "head_gradients", weighted)


@pytest.mark.parametrize(
    ("plant", "number", "caught"),
    [
        (rate_and_a_half, HEAD, {ROWS}),
        pytest.param(rate_and_a_half, TUNING, {ROWS}, marks=pytest.mark.thorough),
        (features_centred, HEAD, {OTHERS}),
        (little_noise_for_small_arrays, HEAD, {NOISES}),
        pytest.param(one_noise_for_a_shape, TUNING, {NOISES}, marks=pytest.mark.slow),
        (clipped_by_the_median, HEAD, {MOVES}),
        (weighted_by_class_counts, HEAD, {OTHERS}),
        (a_mean_beside_the_update, HEAD, {LEAVES}),
        (more_than_the_sum, HEAD, {MOVES, NOISES}),
    ],
)
def test_a_planted_fault_is_caught(
    model: MultiModalViT,
    patients: SiteData,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    number: int,
    caught: set[str],
) -> None:
    plant(monkeypatch)
    assert {check.name for check in failed(model, patients, number)} == caught


def test_no_noise_and_no_charge_are_caught(model: MultiModalViT, patients: SiteData, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = replace(CONFIG, privacy=replace(CONFIG.privacy, noise_multiplier=0.0))
    assert {check.name for check in failed(model, patients, HEAD, silent)} == {NOISES}
    monkeypatch.setattr(private, "Charge", lambda noise, rate, steps: Charge(noise, rate, 1))
    assert ROWS in {check.name for check in failed(model, patients, HEAD)}


def test_a_check_that_saw_nobody_move_anything_says_so(model: MultiModalViT, patients: SiteData) -> None:
    """Without labels nothing is learned in a head round: no fault could show."""
    unknown = replace(patients, labels=np.full_like(patients.labels, -1), key="nobody knows")
    found = {check.name: check for check in check_rounds(model, unknown, CONFIG, [HEAD]) if check.name.startswith(MOVES)}
    assert found
    assert all(check.detail.endswith(SAW_NOTHING) for check in found.values())
    assert not any(SAW_NOTHING in check.detail for check in check_rounds(model, patients, CONFIG, [HEAD]))


def test_what_is_watched_is_what_the_round_does(model: MultiModalViT, patients: SiteData) -> None:
    """The watched shares add up to the movement, and one patient's are zero where there is nothing to learn of them."""
    few = patients.select(range(FEW))
    config = replace(CONFIG, privacy=replace(CONFIG.privacy, noise_multiplier=0.0, sample_rate=1.0, steps=1))
    seen = watch(model, without(few, 0), config, HEAD, learning_rate=float(FEW))
    [step] = seen.steps
    assert step.rows == FEW
    assert not any(share[0].any() for share in step.shares.values())  # without a label, in a head round
    for name, share in step.shares.items():
        moved = seen.update.arrays[name] - get_arrays(model)[name]
        np.testing.assert_allclose(moved, -share.sum(0).numpy(), atol=1e-6)


@pytest.mark.slow
def test_canaries_find_gross_faults_of_a_whole_round_and_nothing_in_a_sound_one(monkeypatch: pytest.MonkeyPatch) -> None:
    charge, generator = Charge(4.2, 0.1, 200), torch.Generator()
    sound = canary_round(charge, 1e-5, generator.manual_seed(0))
    assert sound.claimed == pytest.approx(1.35, abs=0.05)
    assert sound.passed
    honest = noise.noised
    monkeypatch.setattr(optimizer, "noised", lambda total, std: honest(total, std / 8))
    assert not canary_round(charge, 1e-5, generator.manual_seed(0)).passed
