import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.objectives.masking import drop_modalities, sample_block_masks, sample_masked_modalities, student_masks


def some_present(patients: int, seed: int) -> torch.Tensor:
    present = torch.rand(patients, 4, generator=torch.Generator().manual_seed(seed)) < 0.6
    present[:, 2] |= ~present.any(1)
    return present


@given(st.integers(0, 10_000), st.sampled_from(["none", "one", "any"]))
def test_something_present_always_stays_to_be_seen(seed: int, kind: str) -> None:
    generator, present = torch.Generator().manual_seed(seed), some_present(8, seed)
    masked = sample_masked_modalities(present, kind, generator)
    assert not (masked & ~present).any()
    assert (present & ~masked).any(1).all()
    kept = drop_modalities(present, 0.7, generator)
    assert not (kept & ~present).any()
    assert kept.any(1).all()


def test_how_many_are_masked_is_uniform_and_which_is_too() -> None:
    """Chi-square, 4 equally likely numbers: 16.3 is exceeded once in a thousand."""
    present = torch.ones(4000, 4, dtype=torch.bool)
    masked = sample_masked_modalities(present, "any", torch.Generator().manual_seed(0))
    numbers = torch.bincount(masked.sum(1), minlength=4)
    assert len(numbers) == 4
    assert ((numbers - 1000) ** 2 / 1000).sum() < 16.3
    which = masked.sum(0)
    assert ((which - 1500) ** 2 / 1500).sum() < 16.3


def test_the_papers_kind_masks_exactly_one_of_several() -> None:
    present = some_present(500, 3)
    masked = sample_masked_modalities(present, "one", torch.Generator().manual_seed(0))
    assert torch.equal(masked.sum(1), (present.sum(1) > 1).long())


def test_the_chance_of_dropping_is_kept() -> None:
    present = torch.ones(4000, 4, dtype=torch.bool)
    kept = drop_modalities(present, 0.3, torch.Generator().manual_seed(0))
    lost = (kept.sum(1) < 4).float().mean().item()
    assert lost == pytest.approx(0.3, abs=0.03)
    assert set(kept.sum(1).tolist()) == {1, 2, 3, 4}


def test_blocks_are_rectangles_of_the_asked_size() -> None:
    masks = sample_block_masks(400, (14, 14), 0.5, (0.1, 0.5), torch.Generator().manual_seed(0)).view(400, 14, 14)
    chosen = masks[masks.any((1, 2)).nonzero().squeeze(1)]
    assert 160 < len(chosen) < 240
    for mask in chosen:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert box == mask.sum()
        assert 0.08 <= mask.float().mean() <= 0.55


def test_masks_are_the_or_of_both_and_the_same_in_every_slice() -> None:
    present = torch.tensor([[True, True, False]])
    modalities = torch.tensor([[True, False, False]])
    blocks = torch.tensor([[False, True]])
    masks = student_masks(present, modalities, blocks, slices=3)
    expected = torch.tensor([[True, True], [False, True], [False, False]])
    assert masks.shape == (1, 3, 3, 2)
    assert all(torch.equal(masks[0, s], expected) for s in range(3))
