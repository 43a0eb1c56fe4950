"""Binary cross entropy of findings against scikit-learn and a loop; what is unknown has no part."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from common.objectives.consistency import Consistency
from common.objectives.dino import Dino
from common.objectives.findings import Findings, masked_cross_entropy
from common.objectives.ibot import Ibot
from common.ternary import NO, UNKNOWN, YES, encode
from tests.common.objectives.made_up_steps import of_patient, step_of

ANSWERS = ((YES, NO, UNKNOWN), (NO, UNKNOWN, UNKNOWN), (UNKNOWN,) * 3, (YES, YES, NO))
LABELS = torch.tensor([encode(row) for row in ANSWERS])
TERM = Findings(weight=1.0)


def test_the_loss_is_that_of_scikit_learn_on_what_is_known_times_its_share() -> None:
    step = step_of(labels=LABELS, exclusive=False)
    loss, _ = TERM.loss(step, {})
    truth, said = [], []
    for view in step.logits:
        for row, answers in zip(view, ANSWERS, strict=True):
            for f, answer in enumerate(answers):
                if answer != UNKNOWN:
                    truth.append(answer == YES)
                    said.append(float(torch.sigmoid(row[f] / step.student_temperature)))
    share = len(truth) / (len(step.logits) * 4 * 3)
    assert float(loss) == pytest.approx(share * log_loss(truth, np.array(said)), rel=1e-5)


def test_what_is_unknown_has_no_gradient() -> None:
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    masked_cross_entropy(logits, LABELS).backward()
    assert logits.grad is not None
    known = torch.tensor(ANSWERS) != UNKNOWN
    assert (logits.grad[:, ~known] == 0).all()
    assert (logits.grad[:, known] != 0).all()
    assert float(masked_cross_entropy(logits.detach(), torch.full((4,), -1))) == 0


def test_one_patients_part_depends_on_nobody_else() -> None:
    step = step_of(labels=LABELS, exclusive=False)
    alone = [float(TERM.loss(of_patient(step, row), {})[0]) for row in range(4)]
    assert float(TERM.loss(step, {})[0]) == pytest.approx(np.mean(alone), rel=1e-5)
    each = torch.vmap(lambda logits, label: masked_cross_entropy(logits.unsqueeze(1), label.view(1)), in_dims=(1, 0))
    torch.testing.assert_close(
        each(step.logits[..., :3] / step.student_temperature, LABELS), torch.tensor(alone), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("term", [Dino(weight=1.0), Ibot(weight=1.0), Consistency(weight=1.0)], ids=lambda term: term.name)
def test_softmaxes_leave_findings_out(term: Dino | Ibot | Consistency) -> None:
    """The outputs of findings may be anything, and the prototypes beside them are what these terms are of."""
    step = step_of(labels=LABELS, exclusive=False)
    other: dict[str, Any] = {
        name: torch.cat([getattr(step, name)[..., :3] + 5, getattr(step, name)[..., 3:]], dim=-1)
        for name in ("logits", "patch_logits", "teacher_logits", "teacher_patch_logits")
    }
    of_prototypes: dict[str, Any] = {name: getattr(step, name)[..., 3:] for name in other}
    loss = float(term.loss(step, {})[0])
    assert float(term.loss(dataclasses.replace(step, **other), {})[0]) == pytest.approx(loss)
    assert float(term.loss(dataclasses.replace(step, **of_prototypes, exclusive=True), {})[0]) == pytest.approx(loss)
    assert float(term.loss(dataclasses.replace(step, exclusive=True), {})[0]) != pytest.approx(loss)
