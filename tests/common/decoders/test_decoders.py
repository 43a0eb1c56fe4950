"""Decoders against naive loops, and what must hold of any: absent modalities change nothing, and an image can be learned."""

import pytest
import torch
from torch.nn import functional

from common.decoders.decoder import Decoder, mean_of_present, standardised
from common.decoders.linear import Linear
from common.decoders.registry import DECODERS
from common.decoders.unet import UNet, scales_below

M, D, PATCH, SIZE = 2, 12, 8, 32


def levels_of(decoder: Decoder, depth: int = 4, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, M, D, SIZE // PATCH, SIZE // PATCH, generator=generator) for _ in decoder.reads(depth)]


def values_of(decoder: Decoder, depth: int = 4, patch: int = PATCH) -> dict[str, torch.Tensor]:
    values = decoder.start(M, D, patch, len(decoder.reads(depth)), torch.Generator().manual_seed(1))
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(2)) for name, value in values.items()
    }


def test_the_linear_head_is_a_product_a_patch_interpolated() -> None:
    decoder = Linear()
    values, [level] = values_of(decoder), levels_of(decoder)
    present = torch.tensor([[True, True], [True, False], [False, True]])
    found = decoder.logits([level], torch.zeros(3, M, SIZE, SIZE), present, values)
    coarse = torch.zeros(3, 1, SIZE // PATCH, SIZE // PATCH)
    for n in range(3):
        for row in range(SIZE // PATCH):
            for column in range(SIZE // PATCH):
                parts = []
                for m in range(M):
                    if present[n, m]:
                        token = level[n, m, :, row, column]
                        token = (token - token.mean()) / (token.var(unbiased=False) + 1e-6).sqrt()
                        parts.append(token @ values["weight"][m])
                coarse[n, 0, row, column] = sum(parts) / len(parts) + values["bias"][0]
    expected = functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_linear_head_begins_without_an_opinion() -> None:
    decoder = Linear()
    values = decoder.start(M, D, PATCH, 1, torch.Generator())
    assert not decoder.logits(levels_of(decoder), torch.rand(3, M, SIZE, SIZE), torch.ones(3, M, dtype=torch.bool), values).any()


@pytest.mark.parametrize("name", sorted(DECODERS))
@pytest.mark.parametrize("patch", [4, 8, 14, 16])
def test_any_patch_and_depth_give_a_logit_for_each_pixel(name: str, patch: int) -> None:
    decoder: Decoder = DECODERS[name]()
    for depth in (1, 2, 5, 12):
        reads = decoder.reads(depth)
        assert list(reads) == sorted(set(reads))
        assert (reads[0] >= 1, reads[-1]) == (True, depth)
        values = decoder.start(M, D, patch, len(reads), torch.Generator().manual_seed(0))
        levels = [torch.randn(1, M, D, 2, 2) for _ in reads]
        images, present = torch.rand(1, M, 2 * patch, 2 * patch), torch.ones(1, M, dtype=torch.bool)
        assert decoder.logits(levels, images, present, values).shape == (1, 2 * patch, 2 * patch)
        assert not any("." in name for name in values)


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_an_absent_modality_changes_nothing(name: str) -> None:
    decoder: Decoder = DECODERS[name]()
    values, levels = values_of(decoder), levels_of(decoder)
    present = torch.tensor([[True, False]] * 3)
    images = torch.rand(3, M, SIZE, SIZE) * present.view(3, M, 1, 1)
    first = decoder.logits(levels, images, present, values)
    others = [torch.where(present.view(3, M, 1, 1, 1), level, torch.tensor(7.0)) for level in levels]
    torch.testing.assert_close(first, decoder.logits(others, images, present, values))


def test_every_array_of_the_unet_has_a_part_in_the_answer() -> None:
    decoder = UNet(width=8)
    values = {name: value.requires_grad_() for name, value in values_of(decoder).items()}
    decoder.logits(
        levels_of(decoder), torch.rand(3, M, SIZE, SIZE), torch.ones(3, M, dtype=torch.bool), values
    ).square().sum().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in values.values())


def test_scales_are_those_finer_than_a_patch() -> None:
    assert [scales_below(patch) for patch in (4, 8, 14, 16, 32)] == [
        (2, 1),
        (4, 2, 1),
        (8, 4, 2, 1),
        (8, 4, 2, 1),
        (16, 8, 4, 2, 1),
    ]


def test_tokens_are_standardised_and_averaged_over_those_that_are_there() -> None:
    z = standardised(torch.randn(1, 3, 50, 2, 2) * 9 + 4)
    torch.testing.assert_close(z.mean(2), torch.zeros(1, 3, 2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(2, unbiased=False), torch.ones(1, 3, 2, 2), atol=1e-4, rtol=0)
    found = mean_of_present(z, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(found, (z[:, 0] + z[:, 2]) / 2)
