"""What every part of a phantom is made of: the truth that only a simulator has, for pre-training. No class is in it.

Normal tissues, and of the tumour what an annotator outlines (the regions of BraTS): oedema, solid, enhancing, necrosis. Scanners
are drawn anew for each patient, so that what is learned of tissue does not hang on one protocol.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from common.config.axes import fields_of_view, usual
from common.config.sections import DataConfig
from common.data.slices import scaled_slab
from common.data.volumes import Volume, centre_of, choose_slices, crop_slices
from common.errors import ConfigError
from simulation.phantom.anatomy import grow_head, sample_build
from simulation.phantom.lesion import SUBTYPES, Growth, grow_lesion, sample_age, sample_lesion
from simulation.phantom.scanner import SUBSLICES, acquire, thick_slices
from simulation.phantom.sites import draw_scanner

PARTS = {
    "fluid": ("csf", "blood"),
    "grey": ("grey", "deep-grey"),
    "white": ("white",),
    "oedema": ("oedema",),
    "solid": ("solid", "calcification"),
    "enhancing": ("rim",),
    "necrosis": ("necrosis",),
}
"""Name to what of the simulation it holds; the rest of a voxel is air."""
FIRST_OF_TUMOUR = 3  # of `PARTS`
SHIFT = 12.0  # mm by which the window may miss the tumour's middle, along each axis


@dataclass(frozen=True, eq=False)
class Dissected:
    """One patient's slices [S, M, H, W], as training has them, and the share of each part in each patch [S, K, h, w]."""

    images: NDArray[np.float16]
    parts: NDArray[np.float16]


def dissect(number: int, seed: int, data: DataConfig, patch: int) -> Dissected:
    """Simulate patient `number` (from 0) on a scanner of their own; `patch` is an edge in pixels.

    Raises:
        ConfigError: slices along another axis, or at several fields of view: the truth is cut axially, and once.
    """
    if not usual(data):
        raise ConfigError(
            f"What phantoms are made of is known of axial slices at one field of view; data.axes is {list(data.axes)}, "
            f"data.field_of_view {data.field_of_view}. Take both out of the configuration."
        )
    with threadpool_limits(1):  # sums split over threads need not repeat to the byte
        return _dissect(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,))), number, data, patch)


def _dissect(generator: np.random.Generator, number: int, data: DataConfig, patch: int) -> Dissected:
    subtype = SUBTYPES[number % len(SUBTYPES)]
    age, lesion = sample_age(generator, subtype), sample_lesion(generator, subtype)
    build, scanner = sample_build(generator, age), draw_scanner(generator)
    axes = scanner.axes(SUBSLICES)
    head = grow_head(
        generator, axes, scanner.voxel[0], build, (np.array(lesion.centre, np.float32), lesion.size, lesion.mass_effect)
    )
    growth = grow_lesion(generator, axes, head, lesion, scanner.field)
    scan = acquire(generator, scanner, head, growth, data.modalities)
    seen = scan.mask.any()
    region = scan.mask if seen else next(iter(scan.images.values())) > 0
    (field,) = fields_of_view(data)
    indices = choose_slices(region, data.slices, tumour=bool(seen), thickness=scanner.voxel[2])
    x, y = np.array(centre_of(region, scanner.voxel)) + generator.uniform(-SHIFT, SHIFT, 2)

    def cut(voxels: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return crop_slices(Volume(voxels, scanner.affine), rows, (float(x), float(y)), field, data.size)

    every = np.arange(len(indices))
    scaled = [cut(scaled_slab(Volume(image, scanner.affine), name, indices, data), every) for name, image in scan.images.items()]
    parts = np.stack([cut(thick_slices(share, head), indices) for share in _shares(growth)], 1)
    S, K, edge = *parts.shape[:2], data.size // patch
    shares = parts.reshape(S, K, edge, patch, edge, patch).mean((3, 5))
    return Dissected(np.stack(scaled, 1).astype(np.float16), shares.astype(np.float16))


def _shares(growth: Growth) -> list[NDArray[np.float32]]:
    """Of each part, [P]."""
    known = growth.shares | growth.maps
    return [np.sum([known[name] for name in names], axis=0, dtype=np.float32) for names in PARTS.values()]
