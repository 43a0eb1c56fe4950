"""Terms as values: what a registry line gives, and whether each term's flags say the truth about it."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.objectives.centering import teacher_targets
from common.objectives.consistency import Consistency
from common.objectives.dino import Dino, dino_loss
from common.objectives.ibot import Ibot, ibot_loss
from common.objectives.koleo import KoLeo, koleo_loss
from common.objectives.term import State, StepOutputs, Term, begin_all, weighted_losses
from common.objectives.terms import TERMS
from common.schema import ranged
from common.training.local import train_round
from common.training.private import private_round
from tests.common.objectives.made_up_steps import PATIENTS, normal, of_patient, step_of

KINDS: list[Any] = list(TERMS.values())
PER_PATIENT = [kind() for kind in KINDS if kind.per_patient]
MIXING = [kind() for kind in KINDS if not kind.per_patient]


def loss_of(term: Term, step: StepOutputs) -> Tensor:
    return term.loss(step, term.begin(step.labels, step.classes))[0]


@pytest.mark.parametrize("term", PER_PATIENT, ids=lambda term: term.name)
def test_a_per_patient_term_is_the_mean_of_each_patients_own(term: Term) -> None:
    alone = torch.stack([loss_of(term, of_patient(step_of(), row)) for row in range(PATIENTS)])
    torch.testing.assert_close(loss_of(term, step_of()), alone.mean())


@pytest.mark.parametrize("term", PER_PATIENT, ids=lambda term: term.name)
def test_a_per_patient_term_can_be_mapped_over_patients(term: Term) -> None:
    step, state = step_of(), term.begin(torch.empty(0, dtype=torch.int64), 3)

    def of_one(logits: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        one = replace(step, logits=logits.unsqueeze(1), teacher_logits=teacher.unsqueeze(1), labels=label.view(1))
        return term.loss(one, state)[0]

    mapped = torch.func.vmap(of_one, in_dims=(1, 1, 0))(step.logits, step.teacher_logits, step.labels)
    looped = [term.loss(of_patient(step, row), state)[0] for row in range(PATIENTS)]
    torch.testing.assert_close(mapped, torch.stack(looped))


@pytest.mark.parametrize("term", MIXING, ids=lambda term: term.name)
def test_the_others_are_no_such_mean_after_a_step(term: Term) -> None:
    """Through the batch or through the state: one patient's part is another one where the others are."""
    step = step_of()
    _, state = term.loss(step, term.begin(step.labels, step.classes))
    first = replace(
        step,
        logits=step.logits * torch.tensor([1.0, 9.0, 9.0, 9.0]).view(1, -1, 1),
        embeddings=step.embeddings.flip(1) * 2 + 1,
        teacher_logits=step.teacher_logits + torch.arange(4).view(1, -1, 1) * normal(5),
        teacher_patch_logits=step.teacher_patch_logits + torch.arange(7).view(-1, 1) * normal(5),
    )
    alone = torch.stack([term.loss(of_patient(first, row), state)[0] for row in range(PATIENTS)])
    split = torch.stack([term.loss(replace(first, patch_logits=p, teacher_patch_logits=t), state)[0] for p, t in _patches(first)])
    together = term.loss(first, state)[0]
    assert float((together - (split if term.name == "ibot" else alone).mean()).abs()) > 1e-3
    with pytest.raises(ConfigError, match=rf"objective\.terms\.{term.name}\.weight = .*{term.why_not_private}"):
        config_from_table({"privacy": {"enabled": True}, "objective": _only(term.name)})


def _patches(step: StepOutputs) -> list[tuple[Tensor, Tensor]]:
    return list(zip(step.patch_logits.split(1), step.teacher_patch_logits.split(1), strict=True))


def _only(name: str, **settings: object) -> dict[str, object]:
    terms = {other: {"weight": 0.0} for other in TERMS if other != name}
    return {"local_crops": 0, "terms": {**terms, name: {"weight": 0.5, **settings}}}


def test_consistency_against_a_naive_loop() -> None:
    step, total = step_of(), 0.0
    for b in range(PATIENTS):
        target = torch.exp(step.teacher_logits[0, b] / 0.07) / torch.exp(step.teacher_logits[0, b] / 0.07).sum()
        for v in range(3):
            p = torch.exp(step.logits[v, b] / 0.2) / torch.exp(step.logits[v, b] / 0.2).sum()
            total -= float((target * p.log()).sum()) / (3 * PATIENTS)
    assert float(loss_of(Consistency(), step)) == pytest.approx(total, rel=1e-5)


def test_dino_and_ibot_carry_their_centres_from_step_to_step() -> None:
    one, two = step_of(), step_of(teacher_logits=normal(2, 4, 5, seed=9), teacher_patch_logits=normal(7, 5, seed=10))
    kinds = (
        (
            Dino(center_momentum=0.8),
            one.teacher_logits,
            two.teacher_logits,
            lambda t: dino_loss(two.logits, t, 0.2, skip_same=True),
        ),
        (
            Ibot(center_momentum=0.8),
            one.teacher_patch_logits,
            two.teacher_patch_logits,
            lambda t: ibot_loss(two.patch_logits, t, 0.2),
        ),
    )
    for term, before, now, by_hand in kinds:
        _, state = term.loss(one, term.begin(one.labels, 3))
        found, after = term.loss(two, state)
        center = 0.8 * before.flatten(0, -2).mean(0) + 0.2 * now.flatten(0, -2).mean(0)
        torch.testing.assert_close(after["center"], center)
        torch.testing.assert_close(found, by_hand(teacher_targets(now, center, 0.07)))


def test_koleo_is_the_mean_over_global_views() -> None:
    step = step_of()
    expected = (koleo_loss(step.embeddings[0]) + koleo_loss(step.embeddings[1])) / 2
    torch.testing.assert_close(loss_of(KoLeo(), step), expected)


def test_the_weighted_losses_are_each_terms_own_times_its_weight() -> None:
    terms, step = (KoLeo(weight=0.5), Dino(weight=2.0)), step_of()
    losses, states = weighted_losses(terms, step, begin_all(terms, step.labels, step.classes))
    assert list(losses) == ["koleo", "dino"]
    torch.testing.assert_close(losses["koleo"], 0.5 * loss_of(terms[0], step))
    torch.testing.assert_close(losses["dino"], 2.0 * loss_of(terms[1], step))
    assert states["dino"].keys() == {"center"}


@dataclass(frozen=True)
class Shrink(Term):
    """A test's own term, as a file of its own would hold it: half the squared norm of what is trained."""

    name: ClassVar[str] = "shrink"
    why_not_private: ClassVar[str] = "a test says so"
    weight: float = ranged(0.0, 0.0, 10.0)
    scale: float = ranged(1.0, 0.0, 10.0)

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        squares = [value.square().sum() for value in step.parameters.values()]
        return self.scale * torch.stack(squares).sum() / 2, state


def config_of(objective: dict[str, object], **sections: dict[str, object]) -> RunConfig:
    return config_from_table(
        {
            "data": {"size": 32, "slices": 2},
            "model": {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 1},
            "training": {"batch_size": 6, "precision": "fp32", "warmup_rounds": 0, "weight_decay": 0.0},
            "federation": {"rounds": 4},
            "objective": objective,
            **sections,
        }
    )


def site_of() -> SiteData:
    images = np.random.default_rng(0).random((6, 2, 4, 32, 32)).astype(np.float16)
    return SiteData("s", tuple("abcdef"), images, np.ones((6, 4), bool), np.arange(6) % 3, "key")


def test_a_new_term_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered, it has keys and ranges in a configuration, trains, is told, and keeps out of private runs with its reason."""
    monkeypatch.setitem(TERMS, "shrink", Shrink)
    config = config_of(_only("shrink", scale=2.0))
    model = build_model(config)
    start = get_arrays(model)
    update = train_round(model, start, site_of(), config, round_number=1, site_seed=0)
    name = "head.hidden.weight"
    assert np.abs(update.arrays[name]).sum() < np.abs(start[name]).sum()
    assert update.metrics["shrink"] == pytest.approx(update.metrics["loss"])
    assert update.metrics["shrink"] > 0
    assert config_from_table({"objective": {"terms": {"shrink": {"weight": 1}}}}).objective.terms[-1] == Shrink(weight=1.0)
    with pytest.raises(ConfigError, match=r"objective\.terms\.shrink\.scale: expected a number from 0\.0 to 10\.0"):
        config_of(_only("shrink", scale=11.0))
    with pytest.raises(ConfigError, match=r"objective\.terms\.shrink\.weight.*a test says so"):
        config_of(_only("shrink"), privacy={"enabled": True})


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_term_of_weight_zero_is_not_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of({"local_crops": 0, "terms": {name: {"weight": 0.0}}})
    monkeypatch.setattr(TERMS[name], "loss", lambda *_: pytest.fail("computed"))
    model = build_model(config)
    metrics = train_round(model, get_arrays(model), site_of(), config, round_number=1, site_seed=0).metrics
    assert metrics.get(name, 0.0) == 0.0
    told = {"classification", "dino", "ibot", "koleo", "loss", "seconds"}
    assert metrics.keys() == told


def test_where_no_term_runs_nothing_moves() -> None:
    config = config_of({"terms": {name: {"weight": 0.0} for name in TERMS}})
    model = build_model(config)
    start = get_arrays(model)
    update = train_round(model, start, site_of(), config, round_number=1, site_seed=0)
    assert all(np.array_equal(start[name], update.arrays[name]) for name in start)
    assert update.metrics["loss"] == 0


def test_a_private_round_lets_no_term_count_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    begin = vars(TERMS["classification"])["begin"]
    monkeypatch.setattr(
        TERMS["classification"], "begin", lambda self, labels, c: seen.append(len(labels)) or begin(self, labels, c)
    )
    config = config_of(_only("classification"), privacy={"enabled": True, "steps": 1, "sample_rate": 0.5})
    model = build_model(config)
    private_round(model, get_arrays(model), site_of(), config, round_number=1, site_seed=0, charge=lambda _: None)
    train_round(model, get_arrays(model), site_of(), config, round_number=1, site_seed=0)
    assert seen == [0, 6]
