"""FedProx against its closed form, a step by hand, and what it does to rounds of every kind."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.objectives.fedprox import FedProx
from common.objectives.term import State, StepOutputs, Term, weighted_losses
from common.training.local import train_round
from common.training.plain import descend
from common.training.private_views import draw_example, patient_gradients
from common.training.round import first_point
from tests.common.objectives.made_up_steps import step_of


def test_value_and_gradient_are_the_closed_form() -> None:
    step = step_of()
    parameters = {name: value.clone().requires_grad_() for name, value in step.parameters.items()}
    losses, _ = weighted_losses((FedProx(weight=0.3),), replace(step, parameters=parameters), {"fedprox": {}})
    distance = sum(float((step.parameters[n] - step.received[n]).double().square().sum()) for n in step.parameters)
    assert losses["fedprox"].item() == pytest.approx(0.3 / 2 * distance, rel=1e-6)
    losses["fedprox"].backward()
    for name, value in parameters.items():
        torch.testing.assert_close(value.grad, 0.3 * (step.parameters[name] - step.received[name]))


@dataclass(frozen=True)
class Squares(Term):
    """(w x - y)^2 / 2 for x = 2 and y = 1."""

    name: ClassVar[str] = "squares"
    weight: float = 1.0

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        return (step.parameters["w"] * 2 - 1).square().sum() / 2, state


def test_two_steps_of_a_linear_model_by_hand() -> None:
    """w <- w - 0.1 (2 (2 w - 1) + 0.5 (w - 1)), from the received w = 1: 0.8, then 0.69; without FedProx 0.8, then 0.68."""
    for weight, expected in ((0.5, 0.69), (0.0, 0.68)):
        w = torch.ones(1, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1)
        for _ in range(2):
            step = step_of(parameters={"w": w}, received={"w": torch.ones(1)})
            losses, _ = weighted_losses((Squares(), FedProx(weight=weight)), step, {"squares": {}, "fedprox": {}})
            descend(optimizer, torch.stack(list(losses.values())).sum(), 0.0)
        assert w.item() == pytest.approx(expected, abs=1e-6)


def config_of(mu: float, **sections: dict[str, object]) -> RunConfig:
    table: dict[str, dict[str, object]] = {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 1},
        "objective": {"local_crops": 0, "terms": {"fedprox": {"weight": mu}}},
        "training": {"batch_size": 3, "local_epochs": 4, "precision": "fp32", "warmup_rounds": 0, "weight_decay": 0.0},
        "federation": {"rounds": 4},
    }
    return config_from_table({name: {**table.get(name, {}), **sections.get(name, {})} for name in table.keys() | sections.keys()})


def site_of() -> SiteData:
    images = np.random.default_rng(0).random((6, 2, 4, 32, 32)).astype(np.float16)
    return SiteData("s", tuple("abcdef"), images, np.ones((6, 4), bool), np.arange(6) % 3, "key")


def moved(arrays: Arrays, start: Arrays) -> float:
    return sum(float(np.square(arrays[name].astype(float) - start[name]).sum()) for name in start) ** 0.5


@pytest.mark.parametrize("head_rounds", [0, 1])
def test_a_site_stays_nearer_the_more_it_weighs(head_rounds: int) -> None:
    """In a round on views and in one on features, and it is told where it runs."""
    distances = []
    for mu in (0.0, 1.0, 100.0):
        config = config_of(mu, training={"head_rounds": head_rounds, "head_steps": 20})
        model = build_model(config)
        start = get_arrays(model)
        update = train_round(model, start, site_of(), config, round_number=1, site_seed=0)
        distances.append(moved(update.arrays, start))
        assert ("fedprox" in update.metrics) == (mu > 0)
    assert distances[0] > distances[1] > distances[2] > 0


@pytest.mark.parametrize("method", ["loop", "batched"])
def test_a_private_gradient_holds_it_for_each_patient(method: str) -> None:
    terms = {"classification": 1.0, "dino": 0.0, "ibot": 0.0, "koleo": 0.0}
    gradients = []
    for mu in (0.0, 0.3):
        table = {name: {"weight": weight} for name, weight in terms.items()} | {"fedprox": {"weight": mu}}
        privacy = {"enabled": True, "gradients": method}
        config = config_of(0.0, objective={"local_crops": 0, "terms": table}, privacy=privacy)
        model = build_model(config).eval()
        point = first_point(get_arrays(model), torch.empty(0, dtype=torch.int64), config, 1, torch.device("cpu"))
        far = {name: (value.detach() + 0.1).requires_grad_() for name, value in point.trained.items()}
        examples = [draw_example(model, site_of(), row, config, (3, 0)) for row in range(3)]
        gradients.append(patient_gradients(model, replace(point, trained=far), examples, config))
    for name, plain in gradients[0].items():
        torch.testing.assert_close(gradients[1][name] - plain, torch.full_like(plain, 0.03), atol=1e-5, rtol=0)
