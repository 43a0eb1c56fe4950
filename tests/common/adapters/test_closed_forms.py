"""Adapters by hand, without any model: what they compute, where they start, what takes their place in a release."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.adapters.adapter import Adapter
from common.adapters.bottleneck import Bottleneck
from common.adapters.dora import DoRA
from common.adapters.lora import LoRA, residual_start
from common.adapters.registry import ADAPTERS
from common.errors import ConfigError

GENERATOR = torch.Generator().manual_seed(0)
FROZEN = nn.Linear(12, 7)
X = torch.randn(5, 12, generator=GENERATOR)


def started(adapter: Adapter) -> dict[str, Tensor]:
    return adapter.start(FROZEN.weight, 12, torch.Generator().manual_seed(1))


def moved(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value + 0.1 * torch.randn(value.shape, generator=GENERATOR) for name, value in values.items()}


def run(adapter: Adapter, values: dict[str, Tensor], x: Tensor = X) -> Tensor:
    return adapter.forward(FROZEN, FROZEN.weight, FROZEN.bias, values, x).detach()


def test_lora_is_the_frozen_map_plus_a_scaled_low_rank_product() -> None:
    adapter = LoRA(rank=3, alpha=6.0)
    values = moved(started(adapter))
    naive = X @ (FROZEN.weight + 2.0 * values["lora_b"] @ values["lora_a"]).T + FROZEN.bias
    torch.testing.assert_close(run(adapter, values), naive.detach())


def test_dora_is_a_magnitude_times_a_direction_row_by_row() -> None:
    """Against a loop over the rows, in numpy."""
    adapter = DoRA(rank=3, alpha=6.0)
    values = moved(started(adapter))
    w, bias = FROZEN.weight.detach().double().numpy(), FROZEN.bias.detach().double().numpy()
    a, b, m = (values[name].double().numpy() for name in ("lora_a", "lora_b", "magnitude"))
    rows = []
    for i in range(7):
        direction = w[i] + 6.0 / 3 * sum(b[i, r] * a[r] for r in range(3))
        rows.append(m[i] * direction / np.sqrt((direction**2).sum()))
    np.testing.assert_allclose(run(adapter, values).numpy(), X.double().numpy() @ np.array(rows).T + bias, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(np.array(rows), axis=1), np.abs(m))


def test_dora_trains_magnitude_and_direction_apart() -> None:
    """A larger magnitude scales a row and turns nothing; another direction turns a row and scales nothing."""
    adapter = DoRA(rank=3)
    values = started(adapter)
    louder = adapter.weight(FROZEN.weight, {**values, "magnitude": 2 * values["magnitude"]})
    torch.testing.assert_close(louder, 2 * FROZEN.weight)
    turned = adapter.weight(FROZEN.weight, {**values, "lora_b": values["lora_b"] + 1.0})
    torch.testing.assert_close(turned.norm(dim=1), FROZEN.weight.norm(dim=1))
    assert (turned - FROZEN.weight).abs().max() > 1e-2


@pytest.mark.parametrize("adapter", [LoRA(), DoRA()])
def test_linear_adapters_start_at_exactly_the_frozen_map(adapter: Adapter) -> None:
    values = started(adapter)
    assert torch.equal(adapter.weight(FROZEN.weight, values), FROZEN.weight)
    assert torch.equal(run(adapter, values), FROZEN(X).detach())


@pytest.mark.parametrize("adapter", [LoRA(rank=3, alpha=6.0), DoRA(rank=3, alpha=6.0)])
def test_the_merged_matrix_gives_what_the_adapter_gives(adapter: Adapter) -> None:
    values = moved(started(adapter))
    merged = X @ adapter.weight(FROZEN.weight, values).T + FROZEN.bias
    torch.testing.assert_close(merged.detach(), run(adapter, values))
    assert (merged - FROZEN(X)).abs().max() > 1e-2


def test_a_bottleneck_is_a_residual_after_the_frozen_map() -> None:
    adapter = Bottleneck(rank=3)
    values = adapter.start(None, 12, torch.Generator().manual_seed(1))
    assert torch.equal(adapter.forward(nn.Identity(), None, None, values, X), X)
    values = moved(values)
    inner = X @ values["down"].T
    gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    torch.testing.assert_close(adapter.forward(nn.Identity(), None, None, values, X), X + gelu @ values["up"].T)
    assert not adapter.mergeable


def test_a_row_of_zeros_has_no_direction_and_breaks_nothing() -> None:
    weight = torch.zeros(2, 12, requires_grad=True)
    adapter = DoRA(rank=2)
    values = adapter.start(weight, 12, torch.Generator().manual_seed(1))
    found = adapter.weight(weight, values)
    found.sum().backward()
    assert torch.equal(found.detach(), torch.zeros(2, 12))
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize(
    ("factor", "still"),
    [("both", [(), ()]), ("b", [("lora_a",)] * 2), ("alternate", [("lora_a",), ("lora_b",)]), ("step", [(), ()])],
)
def test_lora_alone_holds_a_factor_still(factor: str, still: list[tuple[str, ...]]) -> None:
    assert [LoRA(factor=factor).still(number) for number in (1, 2)] == still
    assert all(kind().still(1) == () for kind in ADAPTERS.values())


def test_lora_alternates_by_local_step_where_it_is_told_to() -> None:
    """B is first: as long as it is zero A would learn nothing."""
    assert [LoRA(factor="step").still_in_step(step) for step in range(4)] == [("lora_a",), ("lora_b",)] * 2
    others = [LoRA(factor=factor) for factor in ("both", "b", "alternate")]
    assert all(adapter.still_in_step(0) == () for adapter in (*others, *(kind() for kind in ADAPTERS.values())))


def test_a_residual_beside_a_pair_is_another_product_added() -> None:
    adapter = LoRA(rank=3, alpha=6.0)
    values = moved(started(adapter) | residual_start(FROZEN.weight.detach(), 5))
    naive = FROZEN.weight + 2.0 * (values["lora_b"] @ values["lora_a"] + values["residual_b"] @ values["residual_a"])
    torch.testing.assert_close(run(adapter, values), (X @ naive.T + FROZEN.bias).detach())
    torch.testing.assert_close(adapter.weight(FROZEN.weight, values), naive)


@pytest.mark.parametrize("kind", [LoRA, DoRA])
def test_targets_that_no_backbone_has_are_refused(kind: type) -> None:
    for targets in ((), ("qkv", "qqq")):
        with pytest.raises(ConfigError, match=r"model\.adapter\.targets: expected some of qkv, proj, fc1, fc2"):
            kind(targets=targets)
