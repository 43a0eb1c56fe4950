"""How an external patient was imaged: from the files' headers, and two statistics of the voxels in which scanners differ.

Stays with the evaluation: the external patients' files are open to whoever evaluates, no training site's are read.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.cases import Case, Site
from common.data.gate.files import load_volume
from common.data.gate.pictures import is_picture
from common.data.volumes import foreground

SLICES = 16  # of a volume, evenly chosen, say enough
LAPLACIAN = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])  # blind to edges and slopes (Immerkaer 1996)


@dataclass(frozen=True)
class Acquisition:
    """One patient's images, of the modality that most of the patients have.

    Attributes:
        site: that the patient came from.
        age: in years, None where not given; sex: likewise.
        spacing: mm along x, y, z of the voxels (RAS), before any resampling; matrix: voxels along x and y. Along z it depends on
            how much of the head was kept.
        dtype: of the stored voxels, such as "int16".
        noise: standard deviation, of the median brain intensity.
        sharpness: mean step between neighbours in the plane over the range of intensities in the brain.
    """

    site: str
    age: float | None
    sex: str | None
    spacing: tuple[float, float, float]
    matrix: tuple[int, int]
    dtype: str
    noise: float
    sharpness: float


def read_acquisitions(sites: Sequence[Site]) -> dict[str, Acquisition]:
    """Every case of the sites by the id that it has among the external patients: `site/id` where several sites are pooled.

    Raises:
        DataError: a file that cannot be read.
    """
    modality = _commonest([case for site in sites for case in site.cases])
    found = {}
    for site in sites:
        for case in site.cases:
            key = case.id if len(sites) == 1 else f"{site.name}/{case.id}"
            found[key] = read_acquisition(case, site.name, modality)
    return found


def read_acquisition(case: Case, site: str, modality: str) -> Acquisition:
    """One case, of `modality` or, where it lacks that, of the first that it has.

    Raises:
        DataError: the file cannot be read.
    """
    file = case.files.get(modality) or next(iter(case.files.values()))
    volume = load_volume(file, case.where(file))
    columns, rows = volume.voxels.shape[:2]
    noise, sharpness = noise_and_sharpness(volume.voxels)
    return Acquisition(site, case.age, case.sex, volume.spacing, (columns, rows), stored_type(file), noise, sharpness)


def stored_type(file: Path) -> str:
    """The type of a readable file's voxels as they are stored."""
    if is_picture(file):
        return "picture"
    with file.open("rb") as content:
        zipped = content.read(2) == b"\x1f\x8b"
    with gzip.open(file) if zipped else file.open("rb") as content:
        start = content.read(nib.Nifti2Header.sizeof_hdr)
    kind = nib.Nifti2Header if nib.Nifti2Header.may_contain_header(start) else nib.Nifti1Header
    header = kind(start[: kind.sizeof_hdr], check=False)  # type: ignore[no-untyped-call]
    return str(header.get_data_dtype().name)


def noise_and_sharpness(voxels: NDArray[np.float32]) -> tuple[float, float]:
    """Relative noise and mean relative step of a volume [X, Y, Z], slice by slice within the brain; zeros without contrast.

    Noise: Immerkaer, Computer Vision and Image Understanding 64:300 (1996), equation 4: the mean absolute answer of a mask that
    is blind to slopes. Fine structure counts as noise a little, so it tells scanners apart and is no measurement of them.
    """
    chosen = np.unique(np.linspace(0, voxels.shape[2] - 1, SLICES).round().astype(int))
    finite = np.nan_to_num(voxels[:, :, chosen], nan=0.0, posinf=0.0, neginf=0.0)
    brain = foreground(finite)
    inside = ndimage.binary_erosion(brain, np.ones((3, 3, 1), bool))  # whose neighbours in the plane are brain too
    values = finite[brain]
    if not inside.any() or np.median(values) <= 0:
        return 0.0, 0.0
    answers = ndimage.convolve(finite.astype(np.float64), LAPLACIAN[:, :, None])[inside]
    noise = float(np.sqrt(np.pi / 2) / 6 * np.abs(answers).mean() / np.median(values))
    low, high = np.percentile(values, (1, 99))
    steps = [np.abs(np.roll(finite, -1, axis) - finite)[inside].mean() for axis in (0, 1)]
    return noise, float(np.mean(steps) / (high - low)) if high > low else 0.0


def _commonest(cases: Sequence[Case]) -> str:
    """The modality that most cases have, the first of several: statistics of one modality compare scanners, not contrasts."""
    names = [name for case in cases for name in case.files]
    return max(dict.fromkeys(names), key=names.count, default="")
