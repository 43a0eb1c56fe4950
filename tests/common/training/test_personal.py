"""Arrays that stay at a site, and Ditto's copy against its closed form."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config.personal import KINDS, named_by_kinds
from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.objectives.term import State, StepOutputs, Term
from common.training.local import train_round
from common.training.personal import as_ditto, personal_round
from common.training.scaffold import LastRound, drift
from common.training.shared import first_personal_round, kept_names, shared, unmoved
from common.training.update import LocalUpdate

GOAL = 0.5


def config_of(**sections: dict[str, Any]) -> RunConfig:
    table: dict[str, dict[str, Any]] = {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 1, "head_hidden": 8, "head_bottleneck": 4},
        "objective": {"local_crops": 0, "modality_dropout": 0.0},
        "training": {"batch_size": 3, "precision": "fp32", "warmup_rounds": 0, "head_rounds": 1, "head_steps": 5},
        "federation": {"rounds": 4},
    }
    return config_from_table({name: {**table.get(name, {}), **sections.get(name, {})} for name in table.keys() | sections.keys()})


def site_of() -> SiteData:
    images = np.random.default_rng(0).random((6, 2, 4, 32, 32)).astype(np.float16)
    return SiteData("s", tuple("abcdef"), images, np.ones((6, 4), bool), np.arange(6) % 3, "key")


def test_each_kind_names_its_arrays_and_no_other() -> None:
    names = list(get_arrays(build_model(config_of())))
    found = {kind: set(named_by_kinds(names, [kind])) for kind in KINDS}
    block = next(name for name in names if "norm1" in name).removesuffix(".norm1.bias")
    assert found["norms"] == {
        f"{place}.{part}" for place in (f"{block}.norm1", f"{block}.norm2", "vit.norm") for part in ("weight", "bias")
    }
    assert found["head"] == {name for name in names if name.split(".")[0] == "head"}
    assert found["modality_embeddings"] == {"modality_embedding"}
    assert set(names) - set().union(*found.values()) == {"mask_token", f"{block}.attn.qkv.lora_a", f"{block}.attn.qkv.lora_b"}


def test_norms_that_are_frozen_for_all_are_trained_by_those_who_keep_them() -> None:
    frozen = {"model": {"blocks": 1, "train_norms": False}}
    without = config_of(**frozen)
    keeping = config_of(**frozen, personal={"keep": ["norms"]})
    names = get_arrays(build_model(keeping)).keys() - get_arrays(build_model(without)).keys()
    assert set(kept_names(sorted(names), keeping, 2)) == names != set()


@pytest.mark.parametrize(
    ("sections", "first"),
    [
        ({"personal": {"keep": ["head"]}}, 2),
        ({"personal": {"keep": ["head"]}, "training": {"head_rounds": 2, "ssl_rounds": 1}}, 4),
        ({"personal": {"ditto_lambda": 0.1}}, 1),
        ({"personal": {"ditto_lambda": 0.1}, "training": {"head_rounds": 3}, "model": {"centre_features": True}}, 2),
    ],
)
def test_what_is_common_to_all_comes_first(sections: dict[str, Any], first: int) -> None:
    config = config_of(**sections)
    assert first_personal_round(config) == first
    kept = {number for number in range(1, 5) if kept_names(["head.patient.bias"], config, number)}
    assert kept == (set(range(first, 5)) if config.personal.keep else set())


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"personal": {"keep": ["heads"]}}, "expected some of norms, head"),
        ({"personal": {"keep": ["head", "head"]}}, "each once"),
        ({"personal": {"keep": ["head"], "ditto_lambda": 0.1}}, "two personal models"),
        ({"personal": {"keep": ["head"]}, "training": {"head_rounds": 4}}, r"federation.rounds of 5 or more"),
        ({"personal": {"keep": ["head"]}, "training": {"head_rounds": 0}}, "no trained head"),
        ({"personal": {"keep": ["norms"]}, "model": {"adapter": "head"}}, "trains no norm"),
        ({"personal": {"keep": ["norms"]}, "evaluation": {"stage": "best", "holdout": 0.2}}, r'evaluation.stage = "last"'),
        ({"personal": {"keep": ["modality_embeddings"]}, "model": {"train_tokens": False}}, "no round trains them"),
        (
            {"personal": {"keep": ["norms"]}, "model": {"train_norms": False}, "training": {"ssl_rounds": 1}},
            "train norms for all",
        ),
        ({"personal": {"ditto_lambda": 0.1}, "federation": {"low_rank": "svd"}}, "says nothing"),
        (
            {
                "personal": {"ditto_lambda": 0.1},
                "privacy": {"enabled": True},
                "objective": {"terms": {name: {"weight": 0.0} for name in ("dino", "ibot", "koleo")}, "local_crops": 0},
            },
            "privacy.enabled",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(sections: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        config_of(**sections)
    assert str(refused.value).startswith("personal.")


@pytest.mark.parametrize("kind", ["norms", "head"])
def test_kept_arrays_go_on_from_the_sites_own_and_the_rest_from_the_global_ones(kind: str) -> None:
    config = config_of(personal={"keep": [kind]})
    model = build_model(config)
    start = get_arrays(model)
    own = {name: start[name] + np.float32(0.1) for name in kept_names(start, config, 2)}

    def play(given: Arrays, number: int = 2) -> tuple[Arrays, Arrays]:
        update, after = personal_round(model, start, given, site_of(), config, round_number=number, site_seed=1)
        return update.arrays, after

    by_hand = train_round(model, {**start, **own}, site_of(), config, round_number=2, site_seed=1).arrays
    arrays, after = play(own)
    assert after.keys() == own.keys()
    assert all(np.array_equal(arrays[name], by_hand[name]) for name in start)
    assert all(np.array_equal(after[name], by_hand[name]) for name in own)
    assert any(not np.array_equal(play({})[1][name], after[name]) for name in own)
    assert play(own, number=1)[1] == {}  # a head round is common to all
    assert np.array_equal(play(own, 1)[0]["vit.norm.bias"], start["vit.norm.bias"])
    sent = shared(start, config, 2)
    assert sent.keys() | own.keys() == start.keys()
    assert not sent.keys() & own.keys()


def test_what_does_not_come_is_no_change() -> None:
    template = {name: np.ones((2, 3), np.float32) for name in "abc"}
    found = unmoved({"c": template["c"], "a": 2 * template["a"]}, template)
    assert list(found) == ["a", "b", "c"]
    assert [float(array.sum()) for array in found.values()] == [12.0, 0.0, 6.0]
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}


def test_scaffold_corrects_what_is_shared_alone() -> None:
    config = config_of(personal={"keep": ["head"]}, federation={"strategy": "scaffold"})
    start = get_arrays(build_model(config))
    sent = shared(start, config, 2)
    moved = {name: array + np.float32(1.0) for name, array in start.items()}
    found = drift(LastRound(sent, {name: np.zeros_like(array) for name, array in sent.items()}), moved, config, 3)
    assert found.keys() == sent.keys()
    assert all((array > 0).all() for array in found.values())


@dataclass(frozen=True)
class Bowl(Term):
    """||v - goal||^2 / 2 of all that is trained: with Ditto's pull the minimum is (goal + lambda w) / (1 + lambda)."""

    name: ClassVar[str] = "bowl"
    on_features: ClassVar[bool] = True
    weight: float = 1.0

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        return torch.stack([(value - GOAL).square().sum() for value in step.parameters.values()]).sum() / 2, state


def bowl_of(ditto_lambda: float, steps: int, rate: float) -> RunConfig:
    training = {"head_optimizer": "sgd", "head_steps": steps, "head_learning_rate": rate, "head_rounds": 4}
    config = config_of(personal={"ditto_lambda": ditto_lambda}, training=training)
    others = tuple(replace(term, weight=1e-9 if term.name == "classification" else 0.0) for term in config.objective.terms)
    return replace(config, objective=replace(config.objective, terms=(Bowl(), *others)))


@pytest.mark.parametrize("ditto_lambda", [0.25, 4.0])
def test_dittos_copy_ends_where_the_closed_form_says(ditto_lambda: float) -> None:
    config = bowl_of(ditto_lambda, 250, 0.1)
    model = build_model(config)
    start = get_arrays(model)
    update, own = personal_round(model, start, {}, site_of(), config, round_number=1, site_seed=1)
    plain = train_round(model, start, site_of(), config, round_number=1, site_seed=1).arrays
    assert all(np.array_equal(update.arrays[name], plain[name]) for name in start)  # the global update knows nothing of it
    for name in (name for name in start if name.startswith("head.")):
        np.testing.assert_allclose(own[name], (GOAL + ditto_lambda * start[name]) / (1 + ditto_lambda), atol=1e-3)
        np.testing.assert_allclose(update.arrays[name], GOAL, atol=2e-2)
    assert np.array_equal(own["vit.norm.bias"], start["vit.norm.bias"])  # a head round trains no norm


def test_dittos_copy_goes_on_from_itself_and_is_pulled_to_what_came() -> None:
    """One step of size r from v, with w: v - r ((v - goal) + lambda (v - w))."""
    config = bowl_of(2.0, 1, 0.1)
    model = build_model(config)
    first = get_arrays(model)
    _, own = personal_round(model, first, {}, site_of(), config, round_number=1, site_seed=1)
    came = {name: array - np.float32(0.3) for name, array in first.items()}
    _, after = personal_round(model, came, own, site_of(), config, round_number=2, site_seed=1)
    for name in (name for name in first if name.startswith("head.")):
        v = first[name] - 0.1 * (first[name] - GOAL)
        np.testing.assert_allclose(own[name], v, atol=1e-5)
        np.testing.assert_allclose(after[name], v - 0.1 * ((v - GOAL) + 2.0 * (v - came[name])), atol=1e-5)


def test_fedprox_of_the_global_update_is_not_dittos(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(personal={"ditto_lambda": 0.7}, objective={"terms": {"fedprox": {"weight": 0.2}}, "local_crops": 0})
    weights: list[float] = []

    def round_of(model: Any, arrays: Arrays, patients: Any, config: RunConfig, **named: Any) -> Any:
        weights.extend(term.weight for term in config.objective.terms if term.name == "fedprox")
        return LocalUpdate(arrays, 1, 1, {})

    monkeypatch.setattr("common.training.personal.train_round", round_of)
    personal_round(None, {"w": np.zeros(1, np.float32)}, {}, site_of(), config, round_number=2, site_seed=1)  # type: ignore[arg-type]
    assert weights == [0.2, 0.7]
    assert not as_ditto(config).personal.on
