"""How far rigid registration misses known motions: table of the errors in millimetres over the head.

    python bench/registration.py CASE [CASE ...] [--greedy] [--itself]

A CASE is a folder of one patient with co-registered NIfTI volumes (t1ce and others). Each other modality is moved by a known
rigid motion (its affine changes, no voxel is touched) and registered back to t1ce; the error is the distance over all points of
the head between where they should be and where they are. `--greedy` measures picsl-greedy beside it, where it is installed.

Published volumes are co-registered by a registration too, whose own errors count here as ours. `--itself` takes t1ce for the
other modality as well, with dark for bright, noise and slices of 3 mm: there the truth is exact.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.data.registration import apply, head_points, register, to_image
from client.data.volume import Volume, load_nifti

MOTIONS = ((3.0, 3.0), (10.0, 10.0))  # mm of shift and degrees of turn


def main() -> None:
    """Print one row a case, modality and motion."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--itself", action="store_true")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    print(
        "| case | modality | motion | mean mm | largest mm | there and back | believed | seconds |"
        + (" greedy |" if arguments.greedy else "")
    )
    for case in arguments.cases:
        reference = load_nifti(next(case.glob("*t1ce.nii*")))
        for modality in ("t1ce",) if arguments.itself else ("t1", "t2", "flair"):
            original = as_another(reference) if arguments.itself else load_nifti(next(case.glob(f"*{modality}.nii*")))
            for shift, turn in MOTIONS:
                truth = motion(generator, shift, turn, head_points(reference).mean(axis=0))
                moved = Volume(original.voxels, truth @ original.affine)
                began = time.process_time()
                found = register(reference, moved)
                took = time.process_time() - began
                errors = error(found.matrix, truth, head_points(reference))
                row = [case.name, modality, f"{shift:g} mm, {turn:g} deg", f"{errors.mean():.3f}", f"{errors.max():.3f}"]
                row += [f"{found.inconsistency:.3f}", found.problem or "yes", f"{took:.0f}"]
                if arguments.greedy:
                    row.append(greedy(reference, moved, truth))
                print("| " + " | ".join(row) + " |", flush=True)


def as_another(volume: Volume) -> Volume:
    """The same head in another contrast: dark for bright but in the air, noise, and each three slices averaged to one."""
    voxels = volume.voxels
    top = np.float32(np.percentile(voxels[voxels > 0], 99.5))
    turned = np.where(voxels > 0, top - np.minimum(voxels, top) + np.float32(0.05) * top, 0)
    turned += np.random.default_rng(0).normal(0, 0.03 * top, voxels.shape)
    slices = voxels.shape[2] // 3
    thick = turned[:, :, : 3 * slices].reshape(*voxels.shape[:2], slices, 3).mean(axis=3)
    place = np.diag([1.0, 1.0, 3.0, 1.0])
    place[2, 3] = 1.0  # the middle of the first three
    return Volume(thick.astype(np.float32), volume.affine @ place)


def motion(generator: np.random.Generator, shift: float, turn: float, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """A rigid motion of the given size in a random direction, about a point (mm, degrees)."""
    axis, direction = generator.normal(size=(2, 3))
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(turn)
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift * direction / np.linalg.norm(direction)
    return matrix


def error(found: NDArray[np.float64], truth: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each point between where it is and where it should be."""
    return np.asarray(np.linalg.norm(apply(found, points) - apply(truth, points), axis=1))


def greedy(reference: Volume, moved: Volume, truth: NDArray[np.float64]) -> str:
    """The same by picsl-greedy: mean and largest error, and seconds."""
    from picsl_greedy import Greedy3D  # noqa: PLC0415

    began = time.process_time()
    tool = Greedy3D()
    tool.execute(
        "-i fixed moving -a -dof 6 -m NMI -n 100x50x10 -ia-image-centers -o affine -threads 1",
        fixed=to_image(reference),
        moving=to_image(moved),
        affine=None,
    )
    errors = error(np.asarray(tool["affine"]), truth, head_points(reference))
    return f"{errors.mean():.3f} / {errors.max():.3f} mm, {time.process_time() - began:.0f} s"


if __name__ == "__main__":
    main()
