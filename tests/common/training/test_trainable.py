"""What a round may train of LoRA: exact averages against merging by hand, and what is still stays so byte for byte."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from common.adapters.dora import DoRA
from common.adapters.lora import LoRA
from common.aggregation.fedavg import FedAvg
from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.models.arrays import Arrays, difference, get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.privacy.gradients import Parameters
from common.privacy.optimizer import CLIP_MARGIN, SystemNoiseOptimizer
from common.training import private
from common.training import round as rounds
from common.training.local import train_round
from common.training.private import private_round
from common.training.private_views import draw_example, patient_gradients
from common.training.round import Point, first_point
from common.training.trainable import trained_names
from tests.common.privacy.naive_clipping import clipped_sum

STILL = [("b", 1, "lora_a"), ("b", 2, "lora_a"), ("alternate", 1, "lora_a"), ("alternate", 2, "lora_b")]
PLAIN: dict[str, dict[str, Any]] = {"objective": {"local_crops": 0}}
PRIVATE_TERMS = {
    name: {"weight": weight}
    for name, weight in {"classification": 1.0, "consistency": 0.3, "dino": 0.0, "ibot": 0.0, "koleo": 0.0}.items()
}
PRIVATE: dict[str, dict[str, Any]] = {"objective": {"local_crops": 0, "terms": PRIVATE_TERMS}}


def config_of(factor: str, **sections: dict[str, object]) -> RunConfig:
    """Two adapted blocks, and a weight decay that would move every matrix that an optimizer holds."""
    base: dict[str, dict[str, object]] = {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 2, "adapter": {"rank": 3, "factor": factor}},
        "training": {"batch_size": 4, "precision": "fp32", "warmup_rounds": 0, "weight_decay": 1.0, "learning_rate": 1e-2},
        "federation": {"rounds": 6},
    }
    return config_from_table({name: {**base.get(name, {}), **sections.get(name, {})} for name in base.keys() | sections.keys()})


def private_config(factor: str, **privacy: Any) -> RunConfig:
    return config_of(factor, **PRIVATE, privacy={"enabled": True, "steps": 2, "sample_rate": 1.0, **privacy})


def site_of(patients: int = 8, seed: int = 0) -> SiteData:
    generator = np.random.default_rng(seed)
    images = generator.random((patients, 2, 4, 32, 32)).astype(np.float16)
    labels = generator.integers(0, 3, patients)
    return SiteData("s", tuple(map(str, range(patients))), images, np.ones((patients, 4), bool), labels.astype(np.int64), "key")


def moved(model: MultiModalViT) -> Arrays:
    """The model's arrays, moved: as long as B is zero, A has no gradient and would stay still of itself."""
    generator = np.random.default_rng(1)
    return {name: a + generator.normal(0, 0.05, a.shape).astype(np.float32) for name, a in get_arrays(model).items()}


def changed(new: Arrays, old: Arrays) -> set[str]:
    assert new.keys() == old.keys()
    return {name for name in old if new[name].tobytes() != old[name].tobytes()}


def factors(names: set[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names if "lora" in name}


def merged(model: MultiModalViT, arrays: Arrays, config: RunConfig) -> dict[str, np.ndarray]:
    """Every adapted matrix W + (alpha / r) B A, by hand, in float64."""
    frozen = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    layers = [name.removesuffix(".lora_a") for name in arrays if name.endswith(".lora_a")]
    a, b = ({layer: arrays[f"{layer}.{part}"].astype(np.float64) for layer in layers} for part in ("lora_a", "lora_b"))
    adapter = config.model.adapter
    assert isinstance(adapter, LoRA)
    scale = adapter.alpha / adapter.rank
    return {layer: frozen[f"{layer}.frozen.weight"] + scale * b[layer] @ a[layer] for layer in layers}


def averaging_errors(factor: str, rounds: int = 3) -> list[float]:
    """Of each round of three unequal sites: how far the averaged arrays' merged matrices are from the mean merged ones."""
    config = config_of(factor, **PLAIN)
    model = build_model(config)
    arrays, errors, weights = get_arrays(model), [], [4.0, 8.0, 5.0]
    sites = [site_of(int(weight), seed) for seed, weight in enumerate(weights)]
    for number in range(1, rounds + 1):
        updates = [train_round(model, arrays, s, config, round_number=number, site_seed=i).arrays for i, s in enumerate(sites)]
        changes = zip((difference(update, arrays) for update in updates), weights, strict=True)
        arrays, _ = FedAvg().apply({}, arrays, changes)
        found, own = merged(model, arrays, config), [merged(model, update, config) for update in updates]
        assert any(np.abs(own[0][layer] - own[1][layer]).max() > 1e-3 for layer in found)  # or any average would be exact
        naive = {layer: np.average([site[layer] for site in own], axis=0, weights=weights) for layer in found}
        errors.append(max(float(np.abs(found[layer] - naive[layer]).max()) for layer in found))
    return errors


@pytest.mark.slow
@pytest.mark.parametrize("factor", ["b", "alternate"])
def test_the_mean_of_the_factors_is_the_mean_of_the_merged_matrices(factor: str) -> None:
    assert max(averaging_errors(factor)) < 1e-6


def test_with_both_factors_the_mean_is_another_matrix() -> None:
    assert min(averaging_errors("both")) > 1e-4


@pytest.mark.parametrize(("factor", "number", "still"), STILL)
def test_a_plain_round_leaves_the_still_factor_byte_for_byte(factor: str, number: int, still: str) -> None:
    config = config_of(factor, **PLAIN)
    model = build_model(config)
    start = moved(model)
    update = train_round(model, start, site_of(), config, round_number=number, site_seed=0)
    expected = {name for name in start if not name.endswith(still)}
    assert changed(update.arrays, start) == expected == set(trained_names(start, config, number))
    assert factors(expected) == {"lora_a", "lora_b"} - {still}


@pytest.mark.parametrize("number", [1, 2])
def test_with_both_factors_a_round_changes_every_array(number: int) -> None:
    config = config_of("both", **PLAIN)
    model = build_model(config)
    start = moved(model)
    assert changed(train_round(model, start, site_of(), config, round_number=number, site_seed=0).arrays, start) == set(start)


@pytest.mark.slow
@pytest.mark.parametrize("factor", ["both", "b", "alternate"])
def test_a_head_round_trains_the_head_alone_whatever_the_factor(factor: str) -> None:
    config = config_of(factor, **PLAIN, training={"head_rounds": 2, "head_steps": 3})
    model = build_model(config)
    start = moved(model)
    for number in (1, 2):
        update = train_round(model, start, site_of(), config, round_number=number, site_seed=0)
        allowed = trained_names(start, config, number)
        assert changed(update.arrays, start) <= set(allowed)
        assert allowed == [name for name in start if name.startswith("head.")]
    after = factors(set(trained_names(start, config, 3)))
    assert after == ({"lora_a", "lora_b"} if factor == "both" else {"lora_b"})


def test_the_teacher_moves_where_the_student_does(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("b", **PLAIN)
    model = build_model(config)
    start, teachers, honest = moved(model), [], vars(rounds)["update_teacher"]

    def watched(*arguments: Any) -> dict[str, torch.Tensor]:
        teachers.append(honest(*arguments))
        return teachers[-1]

    monkeypatch.setattr(rounds, "update_teacher", watched)
    train_round(model, start, site_of(), config, round_number=1, site_seed=0)
    last = {name: value.numpy() for name, value in teachers[-1].items()}
    held = {name: start[name] for name in last}
    assert changed(last, held) == set(last) == {name for name in start if not name.endswith("lora_a")}


@pytest.mark.parametrize(("factor", "number", "still"), [("both", 1, "nothing"), *STILL])
def test_private_noise_is_not_added_to_the_still_factor(factor: str, number: int, still: str) -> None:
    config = private_config(factor, sample_rate=1e-6)  # nobody is in a step: what moves an array is noise, or decay
    model = build_model(config)
    start = moved(model)
    update = private_round(model, start, site_of(), config, round_number=number, site_seed=0, charge=lambda c: None)
    assert changed(update.arrays, start) == {n for n in start if not n.endswith(still) and not n.startswith("head.patch.")}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["loop", "batched"])
@pytest.mark.parametrize(("factor", "number", "still"), STILL)
def test_private_clipping_measures_the_trained_arrays_alone(
    monkeypatch: pytest.MonkeyPatch, method: str, factor: str, number: int, still: str
) -> None:
    """One step without noise, by plain gradient descent, against `clipped_sum` over gradients of all arrays."""
    config = private_config(factor, noise_multiplier=0.0, max_grad_norm=0.2, steps=1, gradients=method)
    model, site = build_model(config), site_of(4)
    sums: dict[str, Any] = {}
    start = moved(model)

    def descend(student: Parameters, _: RunConfig) -> torch.optim.Optimizer:
        return torch.optim.SGD(student.values(), lr=1.0)

    def watched(self: SystemNoiseOptimizer, parameters: Parameters, gradients: Parameters) -> None:
        before = {name: value.detach().clone() for name, value in parameters.items()}
        honest(self, parameters, gradients)
        sums.update({name: len(site) * (before[name] - value.detach()).double() for name, value in parameters.items()})

    honest = SystemNoiseOptimizer.take
    monkeypatch.setattr(private, "make_optimizer", descend)
    monkeypatch.setattr(private, "set_rates", lambda *arguments: None)
    monkeypatch.setattr(SystemNoiseOptimizer, "take", watched)
    private_round(model, start, site, config, round_number=number, site_seed=9, charge=lambda c: None)

    gradients = _all_gradients(model, start, site, config, number)
    clip = 0.2 * (1 - CLIP_MARGIN)
    right = clipped_sum({name: gradients[name] for name in sums}, clip)
    wrong = clipped_sum(gradients, clip)
    assert factors(set(sums)) == {"lora_a", "lora_b"} - {still}
    assert _distance(sums, right) < 1e-4 * _norm(right)
    assert _distance(sums, wrong) > 1e-2 * _norm(right)  # clipping by all arrays' norm would be seen


def _all_gradients(model: MultiModalViT, start: Arrays, site: SiteData, config: RunConfig, number: int) -> Parameters:
    """Of every array that travels, still or not, in the round's first step."""
    point = first_point(start, torch.empty(0, dtype=torch.int64), config, number, torch.device("cpu"))
    trained = {name: torch.tensor(array, requires_grad=True) for name, array in start.items()}
    every = replace(point, trained=trained, fixed={}, teacher={name: value.detach().clone() for name, value in trained.items()})
    examples = [draw_example(model, site, row, config, (9, 0)) for row in range(len(site))]
    return patient_gradients(model, every, examples, config)


def _distance(one: Parameters, other: Parameters) -> float:
    return sum(float((one[name] - other[name]).square().sum()) for name in one) ** 0.5


def _norm(values: Parameters) -> float:
    return sum(float(value.square().sum()) for value in values.values()) ** 0.5


def test_the_private_teacher_reads_the_still_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every step it holds all arrays: the still ones as they came, the others as the student's mean."""
    config = private_config("b")
    model = build_model(config)
    start, teachers, honest = moved(model), [], vars(private)["patient_gradients"]

    def watched(lent: MultiModalViT, point: Point, *rest: Any) -> Parameters:
        both = {**point.teacher, **point.fixed}
        teachers.append({name: value.detach().numpy().copy() for name, value in both.items()})
        return honest(lent, point, *rest)

    monkeypatch.setattr(private, "patient_gradients", watched)
    private_round(model, start, site_of(4), config, round_number=1, site_seed=0, charge=lambda c: None)
    assert changed(teachers[0], start) == set()
    assert changed(teachers[1], start) == {n for n in start if not n.endswith("lora_a") and not n.startswith("head.patch.")}


def test_tokens_that_are_not_trained_come_back_byte_for_byte_in_plain_and_private_rounds() -> None:
    """And a private round then computes nothing below the adapted blocks: no gradient is asked for there."""
    for sections in (PLAIN, {**PRIVATE, "privacy": {"enabled": True, "steps": 2, "sample_rate": 1.0}}):
        config = config_of("both", **sections, model={"train_tokens": False})
        model = build_model(config)
        start = moved(model)
        if config.privacy.enabled:
            new = private_round(model, start, site_of(), config, round_number=1, site_seed=0, charge=lambda _: None).arrays
        else:
            new = train_round(model, start, site_of(), config, round_number=1, site_seed=0).arrays
        still = {"modality_embedding", "mask_token"} | (
            {"head.patch.weight", "head.patch.bias"} if config.privacy.enabled else set()
        )
        assert changed(new, start) == start.keys() - still


def dora_config(**sections: dict[str, object]) -> RunConfig:
    config = config_of("both", **sections)
    return replace(config, model=replace(config.model, adapter=DoRA(rank=3)))


@pytest.mark.parametrize("private", [False, True])
def test_a_round_trains_all_of_dora(private: bool) -> None:
    config = (
        dora_config(**PRIVATE, privacy={"enabled": True, "steps": 2, "sample_rate": 1.0}) if private else dora_config(**PLAIN)
    )
    model = build_model(config)
    start = moved(model)
    if private:
        update = private_round(model, start, site_of(), config, round_number=1, site_seed=0, charge=lambda _: None)
    else:
        update = train_round(model, start, site_of(), config, round_number=1, site_seed=0)
    trained = {name.rpartition(".")[2] for name in changed(update.arrays, start)}
    assert {"lora_a", "lora_b", "magnitude"} <= trained


def test_the_gradients_of_doras_patients_are_the_same_by_loop_and_in_one_pass() -> None:
    config = dora_config(**PRIVATE, privacy={"enabled": True})
    model, site = build_model(config).eval(), site_of(3)
    point = first_point(moved(model), torch.empty(0, dtype=torch.int64), config, 1, torch.device("cpu"))
    examples = [draw_example(model, site, row, config, (7, 0)) for row in range(3)]
    methods = [replace(config, privacy=replace(config.privacy, gradients=method)) for method in ("loop", "batched")]
    loop, batched = (patient_gradients(model, point, examples, method) for method in methods)
    magnitudes = [name for name in loop if name.endswith("magnitude")]
    assert len(magnitudes) == 2
    for name in magnitudes:
        assert loop[name].abs().max() > 0
        torch.testing.assert_close(loop[name], batched[name], rtol=1e-3, atol=1e-6)
