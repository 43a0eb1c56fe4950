"""One site's round: the training loop, with the gradients of a plain or a private rule.

`plain` takes the gradient of a batch's loss, `private` one gradient a patient, clipped and noised. Either works on views of the
patients or, in head rounds, on their features.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.arrays import Arrays
from common.objectives.teacher import update_teacher
from common.objectives.term import States, Term, begin_all
from common.training.schedule import cosine, place_of
from common.training.trainable import is_head_round, is_ssl_round, trained_names
from common.training.update import LocalUpdate

Parameters = dict[str, Tensor]
Losses = Mapping[str, float]  # weighted, by the term's name
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Point:
    """The state of a round before a step.

    Attributes:
        step: from 0.
        done, done_after: the part of the schedule (`place_of`) that is done before and after the step.
        terms: those that run in this round.
        trained: the arrays that the round trains, by name; the optimizer changes their values.
        fixed: the other arrays that travel.
        teacher: the trained arrays' moving average.
        received: the trained arrays as they came.
        states: of the terms.
    """

    step: int
    done: float
    done_after: float
    terms: tuple[Term, ...]
    trained: Parameters
    fixed: Parameters
    teacher: Parameters
    received: Parameters
    states: States

    @property
    def needs_teacher(self) -> bool:
        """Whether a term that runs reads the teacher."""
        return any(term.needs_teacher for term in self.terms)

    @property
    def teachers(self) -> Parameters:
        """All arrays as the teacher has them: its own of what the student holds still in a step, too."""
        return {**self.fixed, **self.teacher}


Step = Callable[[Point], tuple[Losses, States]]


class GradientRule(Protocol):
    """How the gradients of a step come about, and what the optimizer makes of them."""

    @property
    def steps(self) -> int:
        """Of the round."""

    def begin(self, trained: Parameters) -> Step:
        """The function that takes one step: it moves the trained arrays, and gives the losses and the terms' next states."""

    def metrics(self, history: Sequence[Losses]) -> dict[str, float]:
        """The loss terms that the round reports, given those of every step."""


def first_point(arrays: Arrays, labels: Tensor, config: RunConfig, round_number: int, device: torch.device) -> Point:
    """The start of a round.

    Args:
        arrays: the global model's.
        labels: what the terms may count: [N], or [0] in a private round.
        config: says which arrays this round trains and which terms run.
        round_number: from 1.
        device: where labels and arrays go.
    """
    values = {name: torch.tensor(array, device=device) for name, array in sorted(arrays.items())}
    trained = {name: values[name].requires_grad_() for name in trained_names(values, config, round_number)}
    received = {name: value.detach().clone() for name, value in trained.items()}
    head, ssl = is_head_round(config, round_number), is_ssl_round(config, round_number)
    running = config.objective.running()
    terms = tuple(term for term in running if (term.on_features or not head) and (term.in_ssl_rounds or not ssl))
    number, rounds = place_of(config, round_number)
    return Point(
        step=0,
        done=(number - 1) / rounds,
        done_after=(number - 1) / rounds,
        terms=terms,
        trained=trained,
        fixed={name: value for name, value in values.items() if name not in trained},
        teacher=received,
        received=received,
        states=begin_all(terms, labels, len(config.task.classes)),
    )


def local_round(
    point: Point,
    rule: GradientRule,
    patients: SiteData,
    config: RunConfig,
    *,
    round_number: int,
    progress: Progress | None = None,
) -> LocalUpdate:
    """Take all steps of a round from `point`; its trained arrays are changed.

    Args:
        point: from `first_point`.
        rule: gives the gradients of each step, plain or private.
        patients: the site's that train.
        config: of the run.
        round_number: from 1.
        progress: called with steps done and steps in all.
    """
    began, history = time.monotonic(), []
    take_step = rule.begin(point.trained)
    steps = rule.steps if point.terms else 0
    number, rounds = place_of(config, round_number)
    for step in range(steps):
        done, part = (number - 1 + step / steps) / rounds, 1 / (steps * rounds)
        point = replace(point, step=step, done=done, done_after=done + part)
        losses, states = take_step(_moving(point, config))
        history.append(losses)
        point = replace(point, teacher=_moved_teacher(point, config), states=states)
        if progress is not None:
            progress(step + 1, steps)
    update = {name: _array(value) for name, value in sorted({**point.trained, **point.fixed}.items())}
    metrics = rule.metrics(history) | {"seconds": time.monotonic() - began}
    return LocalUpdate(update, len(patients), int((patients.labels >= 0).sum()), metrics)


def _moving(point: Point, config: RunConfig) -> Point:
    """The point as one step sees it: what the adapter holds still in the step is fixed, not trained."""
    still = config.model.adapter.still_in_step(point.step)
    held = {name: value.detach() for name, value in point.trained.items() if name.rpartition(".")[2] in still}
    if not held:
        return point
    moving = {name: value for name, value in point.trained.items() if name not in held}
    return replace(point, trained=moving, fixed={**point.fixed, **held})


def _moved_teacher(point: Point, config: RunConfig) -> Parameters:
    """The teacher after a step; where no term reads it, it stays."""
    if not point.needs_teacher:
        return point.teacher
    return update_teacher(point.teacher, point.trained, cosine(config.objective.teacher_momentum, 1.0, point.done))


def _array(value: Tensor) -> NDArray[np.float32]:
    """For the way back."""
    array: NDArray[np.float32] = value.detach().cpu().float().numpy().copy()
    return array
