"""Each term against a naive loop, another library, or the value it must have."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from common.objectives.centering import teacher_targets, update_center
from common.objectives.classification import class_balance, classification_loss
from common.objectives.dino import dino_loss
from common.objectives.ibot import ibot_loss
from common.objectives.koleo import koleo_loss
from common.objectives.teacher import update_teacher


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_dino_is_the_mean_over_pairs_of_different_views() -> None:
    student, targets = normal(5, 4, 3), normal(2, 4, 3, seed=1).softmax(-1)
    total, pairs = 0.0, 0
    for u in range(2):
        for v in range(5):
            if u != v:
                for b in range(4):
                    p = torch.exp(student[v, b] / 0.1) / torch.exp(student[v, b] / 0.1).sum()
                    total -= float((targets[u, b] * p.log()).sum()) / 4
                pairs += 1
    assert dino_loss(student, targets, 0.1, skip_same=True).item() == pytest.approx(total / pairs, rel=1e-5)


def test_a_student_that_agrees_pays_the_teachers_entropy_only() -> None:
    targets = normal(2, 4, 3).softmax(-1)
    student = targets.flip(0).log() * 0.1  # view i answers what the teacher says of the other view
    entropy = torch.distributions.Categorical(probs=targets).entropy().mean()
    torch.testing.assert_close(dino_loss(student, targets, 0.1, skip_same=True), entropy)


def test_centering_and_sharpening() -> None:
    logits = normal(6, 3)
    center = update_center(None, logits, 0.9)
    torch.testing.assert_close(center, logits.mean(0))
    torch.testing.assert_close(update_center(center, logits + 1, 0.9), center + 0.1)
    torch.testing.assert_close(update_center(center, logits[:0], 0.9), center)
    targets = teacher_targets(logits, center, 0.05)
    torch.testing.assert_close(targets, torch.exp((logits - center) / 0.05) / torch.exp((logits - center) / 0.05).sum(-1, True))


def test_ibot_is_soft_cross_entropy_at_the_masked_tokens() -> None:
    student, targets = normal(7, 3), normal(7, 3, seed=1).softmax(-1)
    torch.testing.assert_close(ibot_loss(student, targets, 0.2), functional.cross_entropy(student / 0.2, targets))
    assert ibot_loss(student[:0], targets[:0], 0.2) == 0


def test_koleo_of_known_points() -> None:
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]) * torch.tensor([[1.0], [5.0], [2.0], [0.1]])
    assert koleo_loss(square).item() == pytest.approx(-math.log(math.sqrt(2)), abs=1e-5)
    crowded = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]])
    assert koleo_loss(crowded) > koleo_loss(square)
    assert koleo_loss(square[:1]) == 0


@pytest.mark.parametrize("kind", ["none", "weights", "prior"])
def test_classification_against_a_naive_loop(kind: str) -> None:
    labels = torch.tensor([0, 0, 0, 1, -1, -1])
    counts = [3, 1, 0]
    logits = normal(6, 3)
    balance = class_balance(labels, 3, kind)
    weights = {"weights": [0.5, 1.5, 0.0]}.get(kind, [1.0, 1.0, 1.0])
    prior = [math.log((n + 0.5) / 5.5) for n in counts] if kind == "prior" else [0.0] * 3
    smooth = [(n + 0.5) / 5.5 for n in counts] if kind == "prior" else [1 / 3] * 3
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        if label < 0:
            continue
        log_p = (row + torch.tensor(prior)).log_softmax(0)
        for c in range(3):
            total -= weights[c] * (0.9 * (c == int(label)) + 0.1 * smooth[c]) * float(log_p[c])
    assert classification_loss(logits, labels, balance, 0.1).item() == pytest.approx(total / 6, rel=1e-5)


def test_a_class_that_a_site_lacks_is_not_lifted_by_smoothing() -> None:
    labels = torch.tensor([0] * 10 + [1] * 14)
    logits = torch.zeros(3, requires_grad=True)
    balance = class_balance(labels, 3, "prior")
    for _ in range(300):
        loss = classification_loss(logits.expand(24, 3), labels, balance, 0.1)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 5 * gradient).detach().requires_grad_()
    assert logits[2] < logits[:2].min()


def test_no_patients_share_depends_on_who_else_is_in_the_batch() -> None:
    logits, labels = normal(4, 3).requires_grad_(), torch.tensor([0, 1, 2, 2])
    balance = class_balance(labels, 3, "weights")
    classification_loss(logits, labels, balance, 0.1).backward()
    first = logits.grad[0].clone()
    logits.grad.zero_()
    classification_loss(logits, torch.tensor([0, -1, 1, -1]), balance, 0.1).backward()
    torch.testing.assert_close(logits.grad[0], first)


def test_an_unlabelled_site_has_no_classification_loss_but_a_gradient_path() -> None:
    logits = normal(3, 3).requires_grad_()
    none = torch.full((3,), -1)
    loss = classification_loss(logits, none, class_balance(none, 3, "prior"), 0.1)
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(3, 3))


def test_the_teacher_follows_as_a_geometric_series() -> None:
    teacher, student = {"a": torch.zeros(2)}, {"a": torch.ones(2)}
    for _ in range(10):
        teacher = update_teacher(teacher, student, 0.9)
    torch.testing.assert_close(teacher["a"], torch.full((2,), 1 - 0.9**10))
