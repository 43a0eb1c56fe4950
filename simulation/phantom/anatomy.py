"""A random brain: level sets in mm, turned into partial-volume maps.

Coordinates are anatomical millimetres, RAS: x to the right, y to the front, z upwards, the origin between the thalami. Shapes are
signed distances, roughly; a tissue's share of a voxel is the linear ramp of its distance over one voxel.
P = voxels inside the head.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.noise_field import Array, grid_field, ripple_field
from simulation.phantom.shapes import capsules, ellipsoid, length, smooth_minimum

Axes = tuple[Array, Array, Array]
FOLD = 22.0  # mm from sulcus over gyrus, sulcus, gyrus: two gyri to a wavelength


@dataclass(frozen=True)
class Head:
    """The normal anatomy of one patient on the voxels inside the brain's surface.

    Args:
        index: [P] flat positions in the grid of `shape`.
        points: [3, P] scan coordinates, mm.
        depth: [P] mm beneath the brain's smooth outer surface.
        shares: tissue name to [P] volume fraction; they sum to one.
    """

    shape: tuple[int, int, int]
    index: NDArray[np.intp]
    points: Array
    depth: Array
    shares: dict[str, Array]


@dataclass(frozen=True)
class Build:
    """One person's proportions.

    Args:
        scale: [3] size along x, y, z relative to the average head.
        angles: [3] radians, how the head lies in the scanner.
        cortex: thickness in mm.
        atrophy: mm added to the half width of every sulcus; also widens the ventricles.
    """

    scale: Array
    angles: Array
    cortex: float
    atrophy: float


def sample_build(generator: np.random.Generator, age: float) -> Build:
    """Draw a build. Cortex 2.5 to 3 mm (Fischl and Dale, PNAS 2000;97:11050); sulci and ventricles widen with age."""
    return Build(
        scale=generator.normal(1.0, 0.03, 3).clip(0.93, 1.07).astype(np.float32),
        angles=generator.normal(0.0, 0.05, 3).clip(-0.12, 0.12).astype(np.float32),
        cortex=float(generator.uniform(2.5, 3.1)),
        atrophy=float(np.clip(0.012 * (age - 40.0) + generator.normal(0.0, 0.2), -0.3, 1.0)),
    )


def push_away(points: Array, centre: Array, radius: float, strength: float) -> Array:
    """Mass effect: the anatomy seen at `points` once a mass at `centre` has displaced it outwards.

    Pulling the coordinate towards the centre shows there what lay nearer to it; the effect fades over twice the radius.
    """
    offset = points - centre[:, None]
    pull = np.float32(strength) * np.exp(length(*offset) ** 2 / np.float32(-2.0 * (1.1 * radius) ** 2))
    result: Array = points - offset * pull
    return result


def grow_head(
    generator: np.random.Generator, axes: Axes, voxel: float, build: Build, mass: tuple[Array, float, float] | None = None
) -> Head:
    """Make a head on a grid.

    Args:
        generator: of the folds and the tissue's texture.
        axes: mm positions of the voxels along x, y, z.
        voxel: mm over which a boundary is blurred by partial volume.
        build: pose, size and proportions of this head.
        mass: centre [3], radius in mm and strength (0 to 0.5) of a displacing mass.
    """
    shape = (len(axes[0]), len(axes[1]), len(axes[2]))
    warps = [2.2 * grid_field(generator, axes, 34.0) for _ in range(3)]
    wobble, deepness, vein = (grid_field(generator, axes, spacing) for spacing in (30.0, 16.0, 7.0))
    x, y, z = np.meshgrid(axes[0] / 82.0, axes[1] / 102.0, axes[2] / 84.0, indexing="ij", sparse=True)
    index = np.flatnonzero(x**2 + y**2 + z**2 < 1.0)
    scanned = np.stack([axis[i] for axis, i in zip(axes, np.unravel_index(index, shape), strict=True)])
    points = scanned if mass is None else push_away(scanned, *mass)
    points = _rotation(build.angles) @ points / build.scale[:, None]
    points = points + np.stack([warp.ravel()[index] for warp in warps])
    depth = brain_depth(points)
    keep = depth > -2.0  # a little subarachnoid fluid stays on the brain, as skull stripping leaves it
    index, scanned, points, depth = index[keep], scanned[:, keep], points[:, keep], depth[keep]
    wobble, deepness, vein = (field.ravel()[index] for field in (wobble, deepness, vein))
    pial = _pial_distance(generator, points, depth, 1.6 * wobble, 19.0 + 6.0 * deepness, vein, build)
    shares = _shares(points, depth, pial, vein, voxel, build)
    return Head(shape, index, scanned, depth, shares)


def brain_depth(points: Array) -> Array:
    """[P] mm beneath the smooth surface of cerebrum, cerebellum and brainstem, negative outside."""
    x, y, z = points
    width = 67.0 * (1.0 - 0.0010 * y)  # wider behind, as the parietal bosses are
    height = np.where(z > 0.0, 68.0, 45.0).astype(np.float32)
    radius = length(x, y, z) + np.float32(1e-3)
    relative = ((np.abs(x) / width) ** 2.3 + (np.abs(y + 4.0) / 84.0) ** 2.3 + (np.abs(z) / height) ** 2.3) ** (1 / 2.3)
    cerebrum = (1.0 / np.maximum(relative, 0.05) - 1.0) * radius * 0.93
    # Underneath, the tentorium bounds it behind; in front the floor of the frontal fossa, higher than the temporal poles.
    front = np.clip(y - 26.0 + 0.014 * (np.abs(x) - 34.0) ** 2, 0.0, 9.0)
    slope = 0.35 * np.clip(1.5 - y / 20.0, 0.1, 1.0)  # temporal lobes hang lowest at the side
    base = -24.0 - slope * np.abs(x) - 0.45 * np.clip(y + 25.0, None, 0.0) + 1.5 * front
    cerebrum = smooth_minimum(cerebrum, 0.7 * (z - base), 10.0)
    cerebellum = -ellipsoid(points, (0.0, -46.0, -36.0), (50.0, 30.0, 21.0))
    stem = -capsules(points, [((0.0, -14.0, -8.0), 12.0), ((0.0, -20.0, -32.0), 12.0), ((0.0, -26.0, -62.0), 8.0)])
    result: Array = np.maximum(np.maximum(cerebrum, cerebellum), stem)
    return result


def _rotation(angles: Array) -> Array:
    """[3, 3] rotation about x, then y, then z."""
    turn = np.eye(3, dtype=np.float32)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        one = np.eye(3, dtype=np.float32)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        turn = one @ turn
    return turn


def _pial_distance(
    generator: np.random.Generator, points: Array, depth: Array, wobble: Array, reach: Array, jitter: Array, build: Build
) -> Array:
    """[P] mm from the nearest pia (outer surface, sulcus or fissure), negative in the fluid."""
    x, y, z = points
    half = 0.55 + build.atrophy * 0.5
    # Sulci: the zero sheets of a ripple looked up near the surface, so that they run inwards rather than along it.
    radius = length(x, y, z) + np.float32(1e-3)
    outer = np.flatnonzero(depth < 34.0)
    outward = points[:, outer] * (1.0 + 0.55 * np.clip(depth[outer], 0.0, 40.0) / radius[outer])
    sheet = np.full(depth.shape, 8.0, np.float32)
    sheet[outer] = np.abs(ripple_field(generator, outward + 2.5 * jitter[outer], FOLD)) * np.float32(FOLD / (2 * np.pi))
    below = np.clip(depth - np.clip(reach, 6.0, 30.0), 0.0, None)
    sulcus = length(sheet, below) - half * (1.0 + 1.2 * np.exp(-depth / 5.0))
    # The interhemispheric fissure ends on the corpus callosum.
    inside = 1.0 - length((y + 4.0) / 46.0, (z - 2.0) / 31.0)
    fissure = length(x - wobble, 30.0 * np.clip(inside, 0.0, None)) - (half + 0.3)
    # The Sylvian fissure rises backwards; the insula lies at its end.
    level = 0.82 * (z - (2.0 - 0.7 * y)) - 1.5 * wobble - 1.2 * jitter
    beyond = np.maximum(np.maximum(y - 26.0, -32.0 - y), 36.0 + 0.3 * np.abs(y + 4.0) + 2.0 * jitter - np.abs(x))
    sylvian = length(level, np.clip(beyond, 0.0, None)) - (half + 0.3)
    surface = smooth_minimum(depth, sulcus, 2.0)
    result: Array = np.minimum(np.minimum(surface, fissure), sylvian)
    return result


def _shares(points: Array, depth: Array, pial: Array, vein: Array, voxel: float, build: Build) -> dict[str, Array]:
    """Turn distances into volume fractions that sum to one, fluid and blood first."""
    x, y, z = np.abs(points[0]), points[1], points[2]
    mirrored = np.stack([x, y, z])

    def ramp(distance: Array) -> Array:
        result: Array = np.clip(distance / voxel + 0.5, 0.0, 1.0).astype(np.float32)
        return result

    stem = ramp(-capsules(points, [((0.0, -14.0, -8.0), 11.0), ((0.0, -20.0, -32.0), 11.0), ((0.0, -26.0, -62.0), 7.0)]))
    folia = np.where(z < -18.0, 1.0 + np.abs(np.sin(depth * 0.9)) * 1.5, 0.0)  # the cerebellum's leaves: more grey
    ventricle = ramp(-_ventricles(mirrored, build))
    deep = np.minimum(
        np.minimum(
            ellipsoid(mirrored, (14.5, 17.0, 7.0), (5.0, 11.0, 9.0)), ellipsoid(mirrored, (27.0, 2.0, 3.0), (6.0, 17.0, 11.0))
        ),
        ellipsoid(mirrored, (10.5, -15.0, 7.0), (8.5, 13.0, 9.0)),
    )
    nuclei = ramp(-deep)
    fluid = np.maximum((1.0 - ramp(pial)) * (1.0 - stem), ventricle)
    white = np.maximum(ramp(pial - build.cortex - folia), stem)
    plexus = ramp(-ellipsoid(mirrored, (21.5, -37.0, 13.0), (2.0, 4.5, 2.5))) * ventricle
    sinus = ramp(2.6 - length(points[0], depth - 0.5)) * ((z > 5.0) | (y < -70.0))
    cortical = np.clip(3.0 * (vein - 1.5), 0.0, 1.0) * (1.0 - ramp(pial)) * 0.7
    blood = np.maximum(np.maximum(sinus, cortical), 0.6 * plexus).astype(np.float32)
    rest = 1.0 - blood
    fluid = fluid * rest
    rest = rest - fluid
    gyral = np.where(z < -30.0, 1.0, 1.0 - nuclei)
    return {
        "blood": blood,
        "csf": fluid,
        "deep-grey": rest * (1.0 - gyral),
        "white": rest * gyral * white,
        "grey": rest * gyral * (1.0 - white),
    }


def _ventricles(mirrored: Array, build: Build) -> Array:
    """[P] mm outside the lateral, third and fourth ventricles; x is folded onto the right side."""
    wide = 1.3 * build.atrophy
    lateral = [
        ((7.0, 33.0, 6.0), 3.2 + wide),
        ((8.0, 20.0, 14.0), 5.0 + wide),
        ((9.5, 0.0, 21.0), 4.8 + wide),
        ((15.0, -22.0, 22.0), 5.5 + wide),
        ((23.0, -38.0, 14.0), 7.0 + wide),
        ((24.0, -60.0, 9.0), 2.5 + wide),
    ]
    temporal = [((24.0, -38.0, 12.0), 6.0 + wide), ((30.0, -26.0, -4.0), 2.4 + wide), ((33.0, -6.0, -15.0), 2.0 + wide)]
    third = ellipsoid(mirrored, (0.0, -8.0, 4.0), (2.4 + 0.7 * wide, 14.0, 11.0))
    fourth = ellipsoid(mirrored, (0.0, -34.0, -30.0), (6.0, 4.0, 8.0))
    result: Array = np.minimum(np.minimum(capsules(mirrored, lateral), capsules(mirrored, temporal)), np.minimum(third, fourth))
    return result
