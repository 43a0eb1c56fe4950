"""Steps of random numbers, for tests of terms."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from common.objectives.term import StepOutputs

VIEWS, PATIENTS, PROTOTYPES, CLASSES, WIDTH, PATCHES = 3, 4, 5, 3, 6, 7


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step_of(**changes: Any) -> StepOutputs:
    """Two global views and a local one of four patients, one without a label; two arrays that have moved."""
    step = StepOutputs(
        logits=normal(VIEWS, PATIENTS, PROTOTYPES),
        patch_logits=normal(PATCHES, PROTOTYPES, seed=1),
        embeddings=normal(2, PATIENTS, WIDTH, seed=2),
        labels=torch.tensor([0, 2, -1, 1]),
        classes=CLASSES,
        teacher_logits=normal(2, PATIENTS, PROTOTYPES, seed=3),
        teacher_patch_logits=normal(PATCHES, PROTOTYPES, seed=4),
        parameters={"a": normal(2, 3, seed=5), "b": normal(4, seed=6)},
        received={"a": normal(2, 3, seed=7), "b": normal(4, seed=8)},
        student_temperature=0.2,
        teacher_temperature=0.07,
        dense=normal(2, PATIENTS, 1, 4, 4, seed=9),
        lesions=(normal(2, PATIENTS, 1, 4, 4, seed=10) > 0.5).float(),
    )
    return replace(step, **changes)


def of_patient(step: StepOutputs, row: int) -> StepOutputs:
    """The step as a private round has it: of one patient alone."""
    one = slice(row, row + 1)
    return replace(
        step,
        logits=step.logits[:, one],
        embeddings=step.embeddings[:, one],
        labels=step.labels[one],
        teacher_logits=step.teacher_logits[:, one],
        dense=None if step.dense is None else step.dense[:, one],
        lesions=None if step.lesions is None else step.lesions[:, one],
    )
