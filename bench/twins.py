"""Fingerprints on real patients: which twins are found, and whether two persons are ever taken for one.

    python bench/twins.py ../shared/data [--every 4] [--json bench/twins.json]

False matches: all pairs of different persons among `tcga-lgg` and `cases`. Detection: each patient's own volumes in another form,
compared with all patients. `cases/TCGA-DU-7294` and `tcga-lgg/du/sub-TCGADU7294` are one person from two collections, one of them
registered, resampled and skull-stripped, the other a slab cut from the original.
"""

import argparse
import gzip
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from common.data.fingerprint import Fingerprint, fingerprint
from common.data.gate.files import load_volume
from common.data.twins import find_twins, joined
from common.data.volumes import Volume

Change = Callable[[Volume], Volume]
NOT_IMAGES = ("mask", "seg", "lesion")
KNOWN = {"TCGA-DU-7294", "sub-TCGADU7294"}


def patients(data: Path) -> dict[str, dict[str, Path]]:
    """Image files by patient and name."""
    folders = [*sorted(data.glob("tcga-lgg/*/sub-*")), *sorted(f for f in data.glob("cases/*") if f.is_dir())]
    files = {f.name: sorted(f.rglob("*.nii.gz")) for f in folders}
    return {name: {f.name: f for f in found if not any(word in f.name for word in NOT_IMAGES)} for name, found in files.items()}


def resampled(volume: Volume, spacing: tuple[float, float, float]) -> Volume:
    """On a grid of other voxels, by linear interpolation."""
    factor = np.array(volume.spacing) / spacing
    shape = np.maximum(1, np.round(np.array(volume.voxels.shape) * factor)).astype(int)
    voxels = ndimage.affine_transform(volume.voxels, 1 / factor, output_shape=tuple(shape), order=1)
    return Volume(voxels, np.diag([*spacing, 1.0]))


def shifted(part: float) -> Change:
    """By a part of a voxel along each axis, one against the others."""
    return lambda v: Volume(ndimage.shift(v.voxels, (part, -part, part), order=1), v.affine)


def turned(degrees: float) -> Change:
    """In the axial plane."""
    return lambda v: Volume(ndimage.rotate(v.voxels, degrees, axes=(0, 1), reshape=False, order=1), v.affine)


def cropped(volume: Volume) -> Volume:
    """An eighth less in the plane; a tenth of the slices less at either end."""
    x, y, z = volume.voxels.shape
    return Volume(volume.voxels[x // 12 : x - x // 24, y // 24 : y - y // 12, z // 10 : z - z // 10], volume.affine)


def with_skull(volume: Volume) -> Volume:
    """A head round a stripped brain: bright scalp and dark bone 6 mm thick each, their edge as rough as real ones."""
    brain = ndimage.binary_fill_holes(volume.voxels > 0.05 * np.percentile(volume.voxels, 99))
    away = ndimage.distance_transform_edt(~brain, sampling=volume.spacing)
    rough = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 40, brain.shape), 6 / np.array(volume.spacing))
    scalp = (away > 6 + rough) & (away < 12 + rough)
    return Volume(np.where(scalp, np.float32(1.5 * np.percentile(volume.voxels[brain], 90)), volume.voxels), volume.affine)


def other_file(volume: Volume) -> Volume:
    """Written flipped and permuted, as scaled int16 under another header, recompressed, and read again."""
    stored = np.round(volume.voxels[::-1, :, ::-1].transpose(2, 0, 1) * (3000 / np.abs(volume.voxels).max())).astype(np.int16)
    sx, sy, sz = volume.spacing
    affine = np.array([[0, -sx, 0, 80], [0, 0, sy, -90], [-sz, 0, 0, 70], [0, 0, 0, 1]], dtype=float)
    image = nib.Nifti1Image(stored, affine)
    image.header["descrip"] = b"another converter"
    image.header.set_slope_inter(0.37, 5)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "renamed.nii.gz"
        file.write_bytes(gzip.compress(image.to_bytes(), 1))
        return load_volume(file)


CHANGES: Mapping[str, Change] = {
    "another file: name, header, order, int16, compression": other_file,
    "intensities times 3.7 plus 0": lambda v: Volume(v.voxels * 3.7, v.affine),
    "intensities plus a tenth of the range": lambda v: Volume(v.voxels + 0.1 * np.float32(np.ptp(v.voxels)), v.affine),
    "8 bits": lambda v: Volume(np.round(v.voxels * (255 / np.abs(v.voxels).max())).astype(np.float32), v.affine),
    "gamma 0.8": lambda v: Volume(np.sign(v.voxels) * np.abs(v.voxels) ** np.float32(0.8), v.affine),
    "shifted by 0.3 voxels": shifted(0.3),
    "shifted by 0.5 voxels": shifted(0.5),
    "shifted by 0.9 voxels": shifted(0.9),
    "voxels 1.25 times as wide": lambda v: resampled(v, (1.25 * v.spacing[0], 1.25 * v.spacing[1], v.spacing[2])),
    "voxels 0.8 times as wide": lambda v: resampled(v, (0.8 * v.spacing[0], 0.8 * v.spacing[1], v.spacing[2])),
    "slices at half the distance": lambda v: resampled(v, (v.spacing[0], v.spacing[1], v.spacing[2] / 2)),
    "isotropic 2 mm": lambda v: resampled(v, (2.0, 2.0, 2.0)),
    "turned by 3 degrees": turned(3),
    "turned by 8 degrees": turned(8),
    "field of view cropped": cropped,
    "with a skull (made up)": with_skull,
}


def measure(data: Path, every: int) -> dict[str, Any]:
    """False matches among all, and the share found of every `every`-th patient and of the cases."""
    files = patients(data)
    volumes = {name: [load_volume(f) for f in found.values()] for name, found in files.items()}
    tokens = {name: joined(fingerprint(v) for v in found) for name, found in volumes.items()}
    names = list(tokens)
    matches = {frozenset((names[t.first], names[t.second])) for t in find_twins([*tokens.values()], [*tokens.values()])}
    false = [sorted(pair) for pair in matches if len(pair) == 2 and pair != KNOWN]
    chosen = [*names[::every], *names[-3:]]
    found = {}
    for what, change in CHANGES.items():
        again = {name: joined(fingerprint(change(v)) for v in volumes[name]) for name in dict.fromkeys(chosen)}
        found[what] = detection(tokens, again)
        print(f"{what:55} {found[what]}", flush=True)
    return {
        "patients": len(names),
        "pairs": len(names) * (len(names) - 1) // 2 - 1,
        "false_matches": false,
        "highest_overlap_of_two_persons": highest(tokens),
        "TCGA-DU-7294": {"found": KNOWN in matches, "overlap": share(*(tokens[name] for name in sorted(KNOWN)))},
        "found": found,
    }


def detection(tokens: Mapping[str, Fingerprint], again: Mapping[str, Fingerprint]) -> dict[str, Any]:
    """How many are found in their other form, how many other persons with them, and the least overlap."""
    names, asked = list(tokens), list(again)
    twins = find_twins([*again.values()], [*tokens.values()])
    pairs = {(asked[t.first], names[t.second]) for t in twins}
    others = {(a, b) for a, b in pairs if a != b and {a, b} != KNOWN}
    return {
        "found": sum((name, name) in pairs for name in asked),
        "of": len(asked),
        "false": len(others),
        "least_overlap": min(share(tokens[name], again[name]) for name in asked),
    }


def highest(tokens: Mapping[str, Fingerprint]) -> float:
    """The largest overlap of two persons."""
    names = list(tokens)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[:i] if {a, b} != KNOWN]
    return max(share(tokens[a], tokens[b]) for a, b in pairs)


def share(a: Fingerprint, b: Fingerprint) -> float:
    """Shared tokens as a part of the smaller fingerprint."""
    return round(np.intersect1d(a, b).size / max(1, min(a.size, b.size)), 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.data, arguments.every)
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
