"""The head: fractions, volumes and symmetry that a brain must have."""

from collections.abc import Callable
from typing import Any

import numpy as np

from simulation.phantom.anatomy import push_away
from simulation.phantom.scanner import Scanner
from simulation.phantom.shapes import FAR, capsules, ellipsoid


def test_shares_sum_to_one_and_are_shares(grow: Callable[..., Any]) -> None:
    head, growth, _ = grow("idh-wildtype")
    assert np.allclose(sum(head.shares.values()), 1.0, atol=1e-5)
    for share in head.shares.values():
        assert share.min() >= -1e-6
        assert share.max() <= 1.0 + 1e-6
    total = sum(growth.shares.values()).copy()
    for part in growth.compartments:
        total[part.where] += part.share
    assert np.allclose(total, 1.0, atol=1e-4)


def test_volumes_are_those_of_a_brain(grow: Callable[..., Any], scanner: Scanner) -> None:
    head, _, _ = grow("oligodendroglioma")
    litres = {name: share.sum() * np.prod(scanner.voxel) / 3 / 1e6 for name, share in head.shares.items()}
    assert 0.9 < litres["grey"] + litres["white"] + litres["deep-grey"] < 1.6  # adult brains: 1.0 to 1.5
    assert 0.7 < litres["grey"] / litres["white"] < 2.2
    assert 0.05 < litres["csf"] < 0.5


def test_fluid_fills_ventricles_and_grey_lies_outside_white(grow: Callable[..., Any]) -> None:
    head, _, _ = grow("oligodendroglioma", mass_effect=0.0)
    deep = head.depth > 25.0
    assert np.average(head.depth, weights=head.shares["grey"]) < np.average(head.depth, weights=head.shares["white"])
    assert head.shares["csf"][deep].max() > 0.99


def test_mass_effect_moves_anatomy_outwards() -> None:
    centre = np.zeros(3, np.float32)
    points = np.array([[10.0, 100.0], [0.0, 0.0], [0.0, 0.0]], np.float32)
    pushed = push_away(points, centre, 20.0, 0.3)
    assert 6.0 < pushed[0, 0] < 8.0  # what is seen at 10 mm lay nearer
    assert abs(pushed[0, 1] - 100.0) < 0.1


def test_distances_of_sphere_and_tube() -> None:
    points = np.array([[0.0, 6.0, 3.0, 90.0], [0.0, 0.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]], np.float32)
    assert np.allclose(ellipsoid(points[:, 1:], (0.0, 0.0, 0.0), (4.0, 4.0, 4.0)), [2.0, -1.0, FAR], atol=1e-3)
    tube = capsules(points, [((0.0, 0.0, -9.0), 1.0), ((0.0, 0.0, 9.0), 1.0)])
    assert np.allclose(tube, [-1.0, 5.0, 2.0, FAR], atol=1e-4)
