"""Tumour masks on the grid of a site's cached slices, for what training learns from masks (`common.pooling.guided`).

They lie beside the slices in the cache, under the same key, in a file of their own that is made when a run first asks for it: so
caches of earlier versions stay good, and runs that never look at masks neither wait nor store. No module imported here needs
torch. N patients, S slices, H = W pixels.
"""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.config.sections import DataConfig
from common.data.cases import Case, Site
from common.data.dataset import SiteData
from common.data.slices import find_region
from common.data.volumes import Volume, centre_of, choose_slices, crop_slices, load_volume
from common.errors import DataError
from common.files import write_atomic

Lesions = npt.NDArray[np.uint8]
WHOLE = 255  # a pixel that is tumour all over


def with_lesions(patients: SiteData, site: Site, data: DataConfig, cache: Path) -> SiteData:
    """The site's patients, as `open_site` gave them, with `lesions` filled in.

    Args:
        patients: all of the site, in its order.
        site: as `read_site` found it.
        data: as for `open_site`.
        cache: the same folder.

    Raises:
        DataError: a mask that cannot be used, or a cache that cannot be written.
    """
    file = cache / f"{patients.key}.lesions.npz"
    shape = (len(site.cases), data.slices, data.size, data.size)
    found = _load(file, shape)
    if found is None:
        found = np.stack([slice_lesion(case, data) for case in site.cases])
        packed = io.BytesIO()
        np.savez_compressed(packed, lesions=found)
        try:
            write_atomic(file, packed.getvalue())
        except OSError as error:
            raise DataError(f"Slice cache {cache}: {error}. Name a folder to write to (FEDMRI_CACHE).") from error
    return replace(patients, lesions=found)


def slice_lesion(case: Case, data: DataConfig) -> Lesions:
    """The part of each pixel of `slice_case`'s images that is tumour, [S, H, W] from 0 to `WHOLE`; zeros without a mask."""
    first = next(m for m in data.modalities if m in case.files)
    reference = load_volume(case.files[first], case.where(case.files[first]))
    region, tumour = find_region(case, reference)
    if not tumour:
        return np.zeros((data.slices, data.size, data.size), np.uint8)
    indices = choose_slices(region, data.slices, tumour=True, thickness=reference.spacing[2])
    volume = Volume(region.astype(np.float32), reference.affine)
    part = crop_slices(volume, indices, centre_of(region, reference.spacing), data.field_of_view, data.size)
    return np.round(part.clip(0, 1) * WHOLE).astype(np.uint8)


def _load(file: Path, shape: tuple[int, ...]) -> Lesions | None:
    """From the cache; None where it is absent or damaged (zip holds a checksum)."""
    try:
        with np.load(file, allow_pickle=False) as packed:
            found: Lesions = packed["lesions"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None
