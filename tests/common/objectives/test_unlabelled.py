"""Terms that learn from unlabelled patients by the teacher's answers: FixMatch and mean teacher."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from common.config.run import config_from_table
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.objectives.fixmatch import FixMatch, pseudo_labels
from common.objectives.mean_teacher import MeanTeacher, squared_distance
from common.objectives.term import StepOutputs, Term
from common.training.private_views import draw_example, patient_gradients
from common.training.round import first_point
from tests.common.objectives.made_up_steps import CLASSES, PATIENTS, VIEWS, of_patient, step_of

NOBODY = torch.full((PATIENTS,), -1)
TEMPERATURE = 0.2
SITE = torch.tensor([0] * 17 + [1] * 5 + [2] + [-1] * 9)


def loss_of(term: Term, step: StepOutputs, labels: Tensor = SITE) -> Tensor:
    return term.loss(step, term.begin(labels, CLASSES))[0]


def probabilities(logits: Tensor) -> Tensor:
    return torch.softmax(logits[..., :CLASSES] / TEMPERATURE, -1)


def test_fixmatch_against_a_naive_loop() -> None:
    """Equation 4 of the paper, with all patients in the denominator."""
    step, total, counted = step_of(labels=torch.tensor([-1, 2, -1, -1])), 0.0, 0
    for b in range(PATIENTS):
        sure = (probabilities(step.teacher_logits[0, b]) + probabilities(step.teacher_logits[1, b])) / 2
        if step.labels[b] >= 0 or sure.max() < 0.7:
            continue
        counted += 1
        for v in range(VIEWS):
            total -= float(probabilities(step.logits[v, b])[int(sure.argmax())].log()) / (VIEWS * PATIENTS)
    assert 0 < counted < 3  # the threshold parts them
    assert float(loss_of(FixMatch(threshold=0.7), step)) == pytest.approx(total, rel=1e-5)


def test_labelled_patients_and_an_unsure_teacher_give_no_pseudo_label() -> None:
    one = torch.tensor([[[0.0, math.log(6), 0.0, 9.0, 9.0]]]) * TEMPERATURE  # 1/8, 6/8, 1/8; prototypes beyond are no class
    state = FixMatch().begin(SITE, CLASSES)
    unlabelled = step_of(teacher_logits=one, labels=torch.tensor([-1]))
    assert pseudo_labels(unlabelled, state, 0.74).tolist() == [1]
    assert pseudo_labels(unlabelled, state, 0.76).tolist() == [-1]
    assert pseudo_labels(replace(unlabelled, labels=torch.tensor([1])), state, 0.0).tolist() == [-1]


def test_the_prior_turns_a_posterior_for_even_classes_into_one_for_the_sites_shares() -> None:
    even = torch.tensor([0.25, 0.4, 0.35])
    step = step_of(teacher_logits=(even.log() * TEMPERATURE).view(1, 1, 3), labels=torch.tensor([-1]))
    shares = torch.tensor([17.5, 5.5, 1.5]) / 24.5
    bayes = even * shares / (even * shares).sum()
    state = FixMatch(prior="labels").begin(SITE, CLASSES)
    top = float(bayes.max())
    assert int(bayes.argmax()) == 0
    assert pseudo_labels(step, state, top - 1e-4).tolist() == [0]
    assert pseudo_labels(step, state, top + 1e-4).tolist() == [-1]
    assert pseudo_labels(step, FixMatch().begin(SITE, CLASSES), 0.39).tolist() == [1]
    unlabelled = FixMatch(prior="labels").begin(torch.tensor([-1, -1]), CLASSES)
    assert pseudo_labels(step, unlabelled, 0.39).tolist() == [1]


def test_pseudo_labels_in_the_sites_shares_do_not_move_logits_that_know_no_shares() -> None:
    """The step that would make them collapse: logits of zero, and pseudo-labels mostly of one class."""
    shares = torch.tensor([17.5, 5.5, 1.5]) / 24.5
    answers = torch.cat([torch.full((round(float(49 * share)),), c) for c, share in enumerate(shares)])
    logits = torch.zeros(1, len(answers), CLASSES, requires_grad=True)
    step = step_of(
        logits=logits,
        labels=torch.full((len(answers),), -1),
        teacher_logits=functional.one_hot(answers, CLASSES).float().unsqueeze(0) * 9,
    )
    for prior, moved in (("labels", 0.0), ("even", float((shares - 1 / 3).abs().max()))):
        (gradient,) = torch.autograd.grad(loss_of(FixMatch(prior=prior), step), logits)
        assert float((gradient.sum((0, 1)) * TEMPERATURE).abs().max()) == pytest.approx(moved, abs=1e-6)


def test_mean_teacher_against_a_naive_loop() -> None:
    step, total = step_of(), 0.0
    for b in range(PATIENTS):
        teacher = (probabilities(step.teacher_logits[0, b]) + probabilities(step.teacher_logits[1, b])) / 2
        for v in range(VIEWS):
            total += float(((probabilities(step.logits[v, b]) - teacher) ** 2).sum()) / (VIEWS * PATIENTS)
    assert float(loss_of(MeanTeacher(), step)) == pytest.approx(total, rel=1e-5)
    opposite = torch.eye(2).unsqueeze(0)
    assert float(squared_distance(opposite, torch.eye(2).flip(0))) == 2.0


@pytest.mark.parametrize("term", [FixMatch(threshold=0.4), FixMatch(threshold=0.7), MeanTeacher()])
def test_one_patients_gradient_is_the_same_whoever_else_is_there(term: Term) -> None:
    """So that clipping bounds what they do; a denominator that counted the sure ones would not pass."""
    logits = step_of().logits.requires_grad_()
    step = step_of(logits=logits, labels=NOBODY)
    (together,) = torch.autograd.grad(loss_of(term, step), logits)
    for row in range(PATIENTS):
        (alone,) = torch.autograd.grad(loss_of(term, of_patient(step, row)), logits)
        torch.testing.assert_close(together[:, row] * PATIENTS, alone[:, row])
    assert together.abs().sum() > 0


@pytest.mark.parametrize("term", [FixMatch(threshold=0.0), MeanTeacher()])
def test_no_gradient_reaches_the_teacher(term: Term) -> None:
    teacher = step_of().teacher_logits.requires_grad_()
    step = step_of(logits=step_of().logits.requires_grad_(), teacher_logits=teacher, labels=NOBODY)
    loss_of(term, step).backward()
    assert teacher.grad is None


def test_private_gradients_are_one_patients_own_by_loop_and_in_one_pass() -> None:
    """Three patients without a label, through the model: as each alone, and not zero."""
    images = np.random.default_rng(0).random((3, 2, 4, 32, 32)).astype(np.float16)
    site = SiteData("s", tuple("abc"), images, np.ones((3, 4), bool), np.full(3, -1), "key")
    found: dict[str, list[Mapping[str, Tensor]]] = {}
    for method in ("loop", "batched"):
        terms = {"dino": {"weight": 0.0}, "ibot": {"weight": 0.0}, "koleo": {"weight": 0.0}, "mean_teacher": {"weight": 1.0}}
        config = config_from_table(
            {
                "data": {"size": 32, "slices": 2},
                "model": {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 1},
                "training": {"precision": "fp32"},
                "objective": {
                    "local_crops": 0,
                    "modality_dropout": 0.0,
                    "terms": {**terms, "fixmatch": {"weight": 1.0, "threshold": 0.3}},
                },
                "privacy": {"enabled": True, "gradients": method},
            }
        )
        model = build_model(config).eval()
        point = first_point(get_arrays(model), torch.empty(0, dtype=torch.int64), config, 1, torch.device("cpu"))
        examples = [draw_example(model, site, row, config, (3, 0)) for row in range(3)]
        found[method] = [dict(patient_gradients(model, point, some, config)) for some in (examples, examples[1:2])]
    for name, looped in found["loop"][0].items():
        torch.testing.assert_close(found["batched"][0][name], looped, atol=1e-5, rtol=1e-3)
        for together, alone in found.values():
            torch.testing.assert_close(together[name][1:2], alone[name], atol=1e-6, rtol=1e-3)
    assert all(value.abs().sum() > 0 for value in found["loop"][0]["head.prototypes"])


def private(**settings: object) -> dict[str, object]:
    terms = {name: {"weight": 0.0} for name in ("dino", "ibot", "koleo")}
    return {"privacy": {"enabled": True}, "objective": {"local_crops": 0, "terms": {**terms, "fixmatch": settings}}}


def test_a_private_run_has_them_but_for_a_prior_from_labels() -> None:
    config_from_table(private(weight=1.0))
    config_from_table(private(weight=0.0, prior="labels"))
    with pytest.raises(ConfigError, match=r"fixmatch\.prior = 'labels' cannot run with privacy\.enabled.*label counts.*'even'"):
        config_from_table(private(weight=1.0, prior="labels"))
