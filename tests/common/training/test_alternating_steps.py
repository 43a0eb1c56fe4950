"""LoRA's factors in turns, step by step (LA-LoRA): what a step moves, what is clipped, what gets noise."""

from typing import Any

import numpy as np
import pytest
import torch

from common.adapters.lora import LoRA
from common.config.run import RunConfig
from common.models.arrays import Arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.privacy.gradients import Parameters
from common.privacy.optimizer import CLIP_MARGIN, SystemNoiseOptimizer
from common.training import private
from common.training import round as rounds
from common.training.local import train_round
from common.training.private import private_round
from common.training.round import Point
from tests.common.privacy.naive_clipping import clipped_sum
from tests.common.training.test_trainable import PLAIN, changed, config_of, factors, moved, private_config, site_of


def watch(monkeypatch: pytest.MonkeyPatch) -> list[Arrays]:
    """The trained arrays after each step: the teacher is moved right after it."""
    seen, honest = [], vars(rounds)["_moved_teacher"]

    def watched(point: Point, config: RunConfig) -> Any:
        seen.append({name: value.detach().numpy().copy() for name, value in {**point.trained, **point.fixed}.items()})
        return honest(point, config)

    monkeypatch.setattr(rounds, "_moved_teacher", watched)
    return seen


def play(model: MultiModalViT, start: Arrays, config: RunConfig, patients: int = 12) -> Arrays:
    if config.privacy.enabled:
        return private_round(model, start, site_of(patients), config, round_number=1, site_seed=0, charge=lambda _: None).arrays
    return train_round(model, start, site_of(patients), config, round_number=1, site_seed=0).arrays


@pytest.mark.slow
@pytest.mark.parametrize("noise", [None, 1.0, 0.0])
def test_one_factor_moves_in_a_step_and_the_other_in_the_next(monkeypatch: pytest.MonkeyPatch, noise: float | None) -> None:
    """With a weight decay that would move every matrix of the optimizer; in plain rounds, with noise, and with clipping alone."""
    config = config_of("step", **PLAIN) if noise is None else private_config("step", steps=3, noise_multiplier=noise)
    model = build_model(config)
    start, seen = moved(model), watch(monkeypatch)
    play(model, start, config)
    moves = [changed(after, before) for before, after in zip([start, *seen], seen, strict=False)]
    assert [factors(names) for names in moves] == [{"lora_b"}, {"lora_a"}, {"lora_b"}]
    assert all("modality_embedding" in names for names in moves)


def test_noise_alone_moves_what_the_step_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    config = private_config("step", steps=2, sample_rate=1e-6)
    model = build_model(config)
    start, seen = moved(model), watch(monkeypatch)
    play(model, start, config)
    assert [factors(changed(a, b)) for a, b in zip(seen, [start, *seen], strict=False)] == [{"lora_b"}, {"lora_a"}]


def test_the_teacher_has_its_own_values_of_what_the_student_holds_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the third step A is still at the student's value after the second; the teacher's is behind it."""
    config = private_config("step", steps=3, noise_multiplier=0.0)
    model, seen, honest = build_model(config), [], vars(private)["patient_gradients"]

    def watched(lent: MultiModalViT, point: Point, *rest: Any) -> Parameters:
        seen.append(point)
        return honest(lent, point, *rest)

    monkeypatch.setattr(private, "patient_gradients", watched)
    play(model, moved(model), config, patients=4)
    name = next(name for name in seen[2].teacher if name.endswith("lora_a"))
    assert name in seen[2].fixed
    assert not torch.equal(seen[2].teacher[name], seen[2].fixed[name])
    assert torch.equal(seen[2].teachers[name], seen[2].teacher[name])
    assert seen[2].teachers.keys() == seen[2].fixed.keys() | seen[2].trained.keys()


@pytest.mark.parametrize("method", ["loop", "batched"])
def test_private_clipping_counts_only_what_the_step_moves(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Each of two steps without noise, by plain gradient descent, against `clipped_sum` over that step's own gradients."""
    config = private_config("step", noise_multiplier=0.0, max_grad_norm=0.2, steps=2, gradients=method)
    model, site = build_model(config), site_of(4)
    sums: list[Parameters] = []
    gradients: list[Parameters] = []

    def descend(student: Parameters, _: RunConfig) -> torch.optim.Optimizer:
        return torch.optim.SGD(student.values(), lr=1.0)

    def watched(self: SystemNoiseOptimizer, parameters: Parameters, given: Parameters) -> None:
        before = {name: value.detach().clone() for name, value in parameters.items()}
        gradients.append({name: value.clone() for name, value in given.items()})
        honest(self, parameters, given)
        sums.append({name: len(site) * (before[name] - value.detach()).double() for name, value in parameters.items()})

    honest = SystemNoiseOptimizer.take
    monkeypatch.setattr(private, "make_optimizer", descend)
    monkeypatch.setattr(private, "set_rates", lambda *arguments: None)
    monkeypatch.setattr(SystemNoiseOptimizer, "take", watched)
    private_round(model, moved(model), site, config, round_number=1, site_seed=9, charge=lambda c: None)
    for found, given, still in zip(sums, gradients, ("lora_a", "lora_b"), strict=True):
        assert factors(set(found)) == {"lora_a", "lora_b"} - {still}
        right = clipped_sum(given, 0.2 * (1 - CLIP_MARGIN))
        error = sum(float((found[name] - right[name]).square().sum()) for name in found) ** 0.5
        norms = sum(value.double().flatten(1).square().sum(1) for value in given.values()) ** 0.5
        assert norms.min() > 0.2  # everybody is clipped
        assert error < 1e-4 * sum(float(value.square().sum()) for value in right.values()) ** 0.5


def test_alternation_moves_what_both_at_once_move_and_ends_elsewhere() -> None:
    ends = []
    for factor in ("both", "step"):
        config = config_of(factor, **PLAIN)
        model = build_model(config)
        start = moved(model)
        ends.append(play(model, start, config))
        assert changed(ends[-1], start) == set(start)
    assert any(not np.allclose(ends[0][name], ends[1][name], atol=1e-4) for name in ends[0] if "lora" in name)


def test_a_round_trains_both_factors_as_the_server_sees_it() -> None:
    adapter = LoRA(factor="step")
    assert adapter.still(1) == adapter.still(2) == ()
    assert not adapter.exact_mean
