import copy

import pytest
import torch
from opacus import GradSampleModule
from torch import Tensor, nn
from torch.nn import functional

from common.privacy.gradients import Parameters, looped_gradients, mapped_gradients
from common.privacy.optimizer import CLIP_MARGIN, SystemNoiseOptimizer
from tests.common.privacy.naive_clipping import clipped_sum

N, IN, OUT = 5, 4, 3


@pytest.fixture
def task() -> tuple[dict[str, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    parameters = {
        "w": torch.randn(OUT, IN, generator=generator).requires_grad_(),
        "b": torch.randn(OUT, generator=generator).requires_grad_(),
        "unused": torch.randn(2, generator=generator).requires_grad_(),
    }
    return parameters, torch.randn(N, IN, generator=generator), torch.tensor([0, 2, 1, 1, 0])


def one(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(functional.linear(x, parameters["w"], parameters["b"]), y)


def test_gradients_are_those_of_opacus(task) -> None:
    parameters, x, y = task
    layer = nn.Linear(IN, OUT)
    layer.load_state_dict({"weight": parameters["w"].detach(), "bias": parameters["b"].detach()})
    module = GradSampleModule(layer, loss_reduction="sum")
    functional.cross_entropy(module(x), y, reduction="sum").backward()
    found = looped_gradients(lambda p, i: one(p, x[i], y[i]), parameters, N)
    torch.testing.assert_close(found["w"], vars(layer.weight)["grad_sample"])
    torch.testing.assert_close(found["b"], vars(layer.bias)["grad_sample"])
    assert torch.equal(found["unused"], torch.zeros(N, 2))


def test_loop_and_vmap_agree(task) -> None:
    parameters, x, y = task
    looped = looped_gradients(lambda p, i: one(p, x[i], y[i]), parameters, N)
    mapped = mapped_gradients(lambda p, patient: one(p, *patient), parameters, (x, y))
    for name in parameters:
        torch.testing.assert_close(looped[name], mapped[name], rtol=1e-6, atol=1e-6)


def test_a_gradient_that_is_not_finite_moves_nothing(task) -> None:
    parameters, x, y = task
    x[1, 0] = float("inf")
    found = looped_gradients(lambda p, i: one(p, x[i], y[i]), parameters, N)
    assert all(torch.equal(value[1], torch.zeros_like(value[1])) for value in found.values())
    assert found["w"][0].abs().sum() > 0


def test_a_step_without_noise_is_the_clipped_mean(task) -> None:
    parameters, x, y = task
    before = {name: value.detach().clone() for name, value in parameters.items()}
    gradients = looped_gradients(lambda p, i: one(p, x[i], y[i]), parameters, N)
    expected = clipped_sum(gradients, 0.5 * (1 - CLIP_MARGIN))
    optimizer = SystemNoiseOptimizer(
        torch.optim.SGD(parameters.values(), lr=1.0), noise_multiplier=0.0, max_grad_norm=0.5, expected_patients=4.0
    )
    optimizer.take(parameters, gradients)
    for name in parameters:
        torch.testing.assert_close(before[name] - parameters[name].detach(), (expected[name] / 4).float(), rtol=1e-5, atol=1e-6)


def test_clipping_against_a_naive_loop(task) -> None:
    parameters, x, y = task
    gradients = looped_gradients(lambda p, i: one(p, x[i], y[i]), parameters, N)
    total = {name: torch.zeros_like(value[0]) for name, value in gradients.items()}
    for i in range(N):
        norm = sum(float(value[i].square().sum()) for value in gradients.values()) ** 0.5
        for name, value in gradients.items():
            total[name] += value[i] * min(1.0, 0.3 / norm)
    for name, value in clipped_sum(gradients, 0.3).items():
        torch.testing.assert_close(value.float(), total[name])


def test_an_empty_sample_is_noise_alone_of_the_right_size(task) -> None:
    parameters, _, _ = task
    parameters = {"w": torch.zeros(200, 100).requires_grad_()}
    before = copy.deepcopy(parameters)
    gradients = looped_gradients(lambda p, i: p["w"].sum(), parameters, 0)
    optimizer = SystemNoiseOptimizer(
        torch.optim.SGD(parameters.values(), lr=1.0), noise_multiplier=1.5, max_grad_norm=0.4, expected_patients=8.0
    )
    optimizer.take(parameters, gradients)
    moved = (parameters["w"] - before["w"]).detach()
    assert moved.std().item() == pytest.approx(1.5 * 0.4 / 8, rel=0.03)
    assert abs(moved.mean().item()) < 5 * moved.std().item() / 20000**0.5
