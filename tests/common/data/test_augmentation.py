import math

import pytest
import torch

from common.data.augmentation import Crops, apply_crops, sample_crops


def plain(batch: int, modalities: int) -> Crops:
    affine = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat(batch, 1, 1)
    return Crops(affine, torch.ones(batch, modalities), torch.ones(batch, modalities), torch.zeros(batch, 2))


def images() -> torch.Tensor:
    return torch.rand(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def test_identity_parameters_change_nothing() -> None:
    torch.testing.assert_close(apply_crops(images(), plain(2, 4), 16), images())


def test_half_the_edge_is_the_middle_at_twice_the_size() -> None:
    crops = plain(2, 4)
    affine = crops.affine * 0.5
    found = apply_crops(images(), Crops(affine, crops.gamma, crops.gain, crops.ramp), 8)
    torch.testing.assert_close(found, images()[..., 4:12, 4:12])


def test_flip_gamma_gain_and_field_are_the_formulas() -> None:
    crops = plain(2, 4)
    flip = crops.affine.clone()
    flip[:, 0, 0] = -1
    gamma, gain = torch.full((2, 4), 1.5), torch.full((2, 4), 1.1)
    found = apply_crops(images(), Crops(flip, gamma, gain, torch.tensor([[0.1, 0.0]] * 2)), 16)
    column = -((torch.arange(16) + 0.5) / 8 - 1)  # the source's own coordinate
    expected = images().flip(-1) ** 1.5 * 1.1 * (1 + 0.1 * column)
    torch.testing.assert_close(found, expected)


def test_slices_and_modalities_of_a_patient_stay_registered() -> None:
    x = torch.zeros(2, 3, 4, 32, 32)
    x[..., 9:14, 17:22] = 1.0
    crops = sample_crops(2, 4, (0.8, 1.0), torch.Generator().manual_seed(3))
    y = apply_crops(x, crops, 32) > 0
    assert all(torch.equal(y[:, 0, 0], y[:, s, m]) for s in range(3) for m in range(4))


def test_crops_stay_inside_the_image_but_for_the_rotation() -> None:
    crops = sample_crops(500, 4, (0.3, 0.7), torch.Generator().manual_seed(0))
    edge = torch.linalg.det(crops.affine[:, :, :2]).abs().sqrt()
    assert edge.min() >= 0.3
    assert edge.max() <= 0.7
    assert (crops.affine[:, :, 2].abs() <= 1 - edge.unsqueeze(1) + 1e-6).all()
    angle = torch.atan2(crops.affine[:, 0, 1], crops.affine[:, 1, 1]).abs()
    assert angle.max() <= math.radians(20) + 1e-6


def test_equal_generators_give_equal_parameters() -> None:
    one, two = (sample_crops(4, 2, (0.5, 1.0), torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one.affine, two.affine)
    assert not torch.equal(one.affine[0], one.affine[1])
    assert float(one.gamma.log().abs().max()) == pytest.approx(0.125, abs=0.126)
