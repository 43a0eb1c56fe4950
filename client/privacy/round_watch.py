"""A private round watched from its optimizer: what each step is given, and what it does."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.arrays import Arrays, get_arrays
from common.models.multimodal import MultiModalViT
from common.privacy.charge import Charge
from common.training import forward, private, private_views
from common.training.private import private_round
from common.training.update import LocalUpdate


@dataclass
class StepSeen:
    """One step, from outside.

    Attributes:
        shares: [n, *shape] by name, what each drawn patient adds to the sum after clipping, each worked out without the others.
        moved: by name, what the step made of the arrays.
        after: by name, the arrays then.
    """

    rows: int
    shares: dict[str, Tensor]
    moved: dict[str, Tensor] = field(default_factory=dict)
    after: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundSeen:
    """A private round, from outside."""

    start: Arrays
    charges: tuple[Charge, ...]
    early: bool  # a step was taken before the charge
    steps: tuple[StepSeen, ...]
    update: LocalUpdate
    learning_rate: float


def watch(
    model: MultiModalViT,
    patients: SiteData,
    config: RunConfig,
    number: int,
    *,
    learning_rate: float,
    rows_alone: bool = False,
    **instead: Any,
) -> RoundSeen:
    """Run one private round by plain SGD, and see what it does.

    Args:
        model: of the run.
        patients: who train.
        config: of the private run.
        number: of the round.
        learning_rate: of the SGD; the expected number of patients over the clipping norm moves by the sum in clipping norms.
        rows_alone: of its steps note how many patients they saw, and no array: there are thousands of them.
        instead: parts of `common.training.private` to be replaced by others of their name.
    """
    charges: list[Charge] = []
    start, early = get_arrays(model.eval()), False
    with _watched(learning_rate, instead, rows_alone) as steps:

        def charge(cost: Charge) -> None:
            nonlocal early
            early = early or bool(steps)
            charges.append(cost)

        update = private_round(model, start, patients, config, round_number=number, site_seed=config.seed, charge=charge)
    return RoundSeen(start, tuple(charges), early or not charges, tuple(steps), update, learning_rate)


@contextmanager
def _watched(learning_rate: float, instead: dict[str, Any], rows_alone: bool) -> Iterator[list[StepSeen]]:
    """`private_round` with an optimizer that notes what it is given and what it does."""
    seen: list[StepSeen] = []
    watched = (_counting if rows_alone else _noting)(vars(private)["SystemNoiseOptimizer"], seen)

    def plain(trained: dict[str, Tensor], _: RunConfig) -> torch.optim.Optimizer:
        return torch.optim.SGD(trained.values(), lr=learning_rate)

    parts = {"SystemNoiseOptimizer": watched, "make_optimizer": plain, "set_rates": lambda *_: None, **instead}
    with ExitStack() as patches:
        patches.enter_context(patch.multiple(private, **parts))
        for module in (private, private_views, forward):  # on the CPU: a GPU may round by who else is in the batch
            patches.enter_context(patch.object(module, "choose_device", lambda: torch.device("cpu")))
        yield seen


def _counting(real: Any, seen: list[StepSeen]) -> Any:
    """The optimizer, which notes how many patients a step sees."""

    class Counting(real):  # type: ignore[misc]
        def take(self, parameters: Any, gradients: Any) -> None:
            super().take(parameters, gradients)
            seen.append(StepSeen(len(next(iter(gradients.values()))), {}))

    return Counting


def _noting(real: Any, seen: list[StepSeen]) -> Any:
    """The optimizer, which notes all that `StepSeen` holds."""

    class Noting(real):  # type: ignore[misc]
        def take(self, parameters: Any, gradients: Any) -> None:
            names = {id(parameter): name for name, parameter in parameters.items()}
            before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
            self.noted = StepSeen(len(next(iter(gradients.values()))), {})
            self.names = names
            super().take(parameters, gradients)
            self.noted.after = {name: parameter.detach().clone().cpu() for name, parameter in parameters.items()}
            self.noted.moved = {name: self.noted.after[name] - value.cpu() for name, value in before.items()}
            seen.append(self.noted)

        def clip_and_accumulate(self) -> None:
            self.noted.shares = {name: torch.stack(each) for name, each in self._apart().items() if each}
            super().clip_and_accumulate()

        def _apart(self) -> dict[str, list[Tensor]]:
            """Each patient clipped alone, by the optimizer's own hand."""
            given = [(parameter, parameter.grad_sample) for parameter in self.params]
            shares: dict[str, list[Tensor]] = {self.names[id(parameter)]: [] for parameter, _ in given}
            for row in range(self.noted.rows):
                for parameter, whole in given:
                    parameter.grad_sample, parameter.summed_grad = whole[row : row + 1].clone(), None
                super().clip_and_accumulate()
                for parameter, _ in given:
                    shares[self.names[id(parameter)]].append(parameter.summed_grad.detach().clone().cpu())
            for parameter, whole in given:
                parameter.grad_sample, parameter.summed_grad = whole, None
            return shares

    return Noting
