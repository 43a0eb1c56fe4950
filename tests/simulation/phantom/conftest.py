"""A small fast scanner and tumours chosen by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulation.phantom.anatomy import Head, grow_head, sample_build
from simulation.phantom.lesion import Growth, Lesion, grow_lesion, sample_lesion
from simulation.phantom.scanner import SUBSLICES, Scanner


@pytest.fixture(scope="session")
def scanner() -> Scanner:
    """1.5 T, coarse voxels."""
    return Scanner(1.5, (500.0, 12.0), (4200.0, 95.0), (9000.0, 118.0), 0.0, (2.4, 2.4, 4.8), 0.2, 30.0)


Grown = tuple[Head, Growth, Lesion]


@pytest.fixture(scope="session")
def grow(scanner: Scanner) -> Callable[..., Grown]:
    """Grow a head with a tumour of a subtype in deep frontal white matter; properties may be set by name."""

    def make(subtype: str, **changes: Any) -> Grown:
        generator = np.random.default_rng(11)
        fixed: dict[str, Any] = {"centre": (32.0, 30.0, 26.0), "radius": (20.0, 20.0, 20.0), "calcification": 0.0}
        lesion = replace(sample_lesion(generator, subtype), **(fixed | changes))
        axes = scanner.axes(SUBSLICES)
        mass = (np.array(lesion.centre, np.float32), lesion.size, lesion.mass_effect)
        head = grow_head(generator, axes, scanner.voxel[0], sample_build(generator, 50.0), mass)
        return head, grow_lesion(generator, axes, head, lesion, scanner.field), lesion

    return make
