"""The plain gradient rule: the gradient of a batch's loss, clipped by its norm."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.config.sections import ObjectiveConfig
from common.objectives.term import States, StepOutputs, weighted_losses
from common.training.device import autocast
from common.training.round import Losses, Parameters, Point, Step

ALWAYS_TOLD = ("classification", "dino", "ibot", "koleo")  # 0 where a term did not run: every round has reported these


@dataclass(frozen=True)
class PlainGradients:
    """Descent on batches.

    Attributes:
        steps: of the round.
        outputs: what the model says of the next batch.
        make_optimizer: over the trained arrays.
        set_rates: moves the optimizer's rates, given the part of the run that is done.
        clip: largest norm of a step's gradient; 0: off.
        precision: of the losses, as `autocast` takes it.
        summary: of a term's losses in all steps.
        told: the names that `metrics` has.
    """

    steps: int
    outputs: Callable[[Point], StepOutputs]
    make_optimizer: Callable[[Parameters], torch.optim.Optimizer]
    set_rates: Callable[[torch.optim.Optimizer, float], None]
    clip: float
    precision: str
    summary: Callable[[Sequence[float]], float]
    told: tuple[str, ...]

    def begin(self, trained: Parameters) -> Step:
        """See `GradientRule`."""
        optimizer = self.make_optimizer(trained)
        device = next(iter(trained.values())).device

        def step(point: Point) -> tuple[Losses, States]:
            self.set_rates(optimizer, point.done_after)
            outputs = self.outputs(point)
            with autocast(device, self.precision):
                losses, states = weighted_losses(point.terms, outputs, point.states)
            descend(optimizer, torch.stack(list(losses.values())).sum(), self.clip)
            return {name: float(loss.detach()) for name, loss in losses.items()}, states

        return step

    def metrics(self, history: Sequence[Losses]) -> dict[str, float]:
        """Each term's summary, and their sum as `loss`."""
        each = {name: self.summary([losses.get(name, 0.0) for losses in history]) for name in self.told}
        return each | {"loss": sum(each.values())}


def told_terms(objective: ObjectiveConfig) -> tuple[str, ...]:
    """The names that metrics have, the same in every round of a run: Flower averages no others."""
    return tuple(dict.fromkeys((*ALWAYS_TOLD, *(term.name for term in objective.running()))))


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, clip: float) -> None:
    """One step of the optimizer."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if clip:
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
