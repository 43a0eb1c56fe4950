"""Patients' own arrays against a loop over the patients, and what has no rule is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.models.per_patient import NoPatientRuleError, PerPatient, by_patient

PATIENTS, ROWS, TOKENS, IN, OUT = 3, 2, 5, 4, 6


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = drawn(PATIENTS * ROWS, TOKENS, IN)
WEIGHTS, BIASES = drawn(PATIENTS, OUT, IN, seed=1), drawn(PATIENTS, OUT, seed=2)
SCALES, SHIFTS = drawn(PATIENTS, IN, seed=3), drawn(PATIENTS, IN, seed=4)
SHARED = nn.Parameter(drawn(OUT, IN, seed=5))


def looped(function: Callable[..., Tensor], *each: Tensor) -> Tensor:
    """Patient after patient, the plain function of the patient's rows and arrays."""
    return torch.cat([function(rows, *arrays) for rows, *arrays in zip(X.split(ROWS), *each, strict=True)])


@pytest.mark.parametrize(
    ("function", "each"),
    [
        (functional.linear, (WEIGHTS,)),
        (functional.linear, (WEIGHTS, BIASES)),
        (lambda x, bias: functional.linear(x, SHARED, bias), (BIASES,)),
        (lambda x, weight: functional.linear(x, weight, SHARED[:, 0]), (WEIGHTS,)),
        (lambda x, weight, bias: functional.layer_norm(x, (IN,), weight, bias), (SCALES, SHIFTS)),
        (lambda x, bias: functional.layer_norm(x, (IN,), None, bias), (SHIFTS,)),
        (lambda x, weight: functional.linear(x, functional.normalize(2 * weight.float(), dim=-1).double()), (WEIGHTS,)),
        (lambda x, weight: functional.linear(x, SHARED + (weight @ weight.mT) @ SHARED), (WEIGHTS,)),
    ],
)
def test_each_patients_rows_meet_their_own_arrays(function: Callable[..., Tensor], each: tuple[Tensor, ...]) -> None:
    found = function(X, *(PerPatient.of(copies) for copies in each))
    torch.testing.assert_close(found, looped(function, *each))


def test_a_patients_copy_gets_that_patients_gradient() -> None:
    copies = WEIGHTS.clone().requires_grad_()
    functional.linear(X, PerPatient.of(copies)).square().sum().backward()
    for patient, rows in enumerate(X.split(ROWS)):
        weight = WEIGHTS[patient].clone().requires_grad_()
        functional.linear(rows, weight).square().sum().backward()
        assert copies.grad is not None
        assert weight.grad is not None
        torch.testing.assert_close(copies.grad[patient], weight.grad)


def test_what_a_function_says_of_rows_and_values() -> None:
    def scaled(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return x * values["scale"] + values["shift"]

    found = by_patient(scaled, {"scale": PerPatient.of(SCALES), "shift": SHIFTS[0]}, X)
    torch.testing.assert_close(found, looped(lambda x, scale: x * scale + SHIFTS[0], SCALES))
    torch.testing.assert_close(by_patient(scaled, {"scale": SCALES[0], "shift": SHIFTS[0]}, X), X * SCALES[0] + SHIFTS[0])


@pytest.mark.parametrize(
    "function",
    [
        lambda x, _: x * PerPatient.of(SCALES),  # rows or an array of the model? nobody can know
        lambda _, weight: weight + torch.zeros(OUT, IN, dtype=torch.float64),
        lambda x, weight: functional.linear(x[:-1], weight),
        lambda x, weight: x @ weight.mT,
        lambda x, _: functional.layer_norm(x, (TOKENS, IN), PerPatient.of(drawn(PATIENTS, TOKENS, IN))),
        lambda _, weight: weight.tolist(),
    ],
)
def test_what_has_no_rule_is_refused(function: Callable[[Tensor, Tensor], object]) -> None:
    with pytest.raises(NoPatientRuleError):
        function(X, PerPatient.of(WEIGHTS))
