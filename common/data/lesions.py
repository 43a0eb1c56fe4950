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

from common.config.axes import squares
from common.config.sections import DataConfig
from common.data.cases import Case, Site
from common.data.dataset import WHOLE, SiteData
from common.data.gate.patient import read_patient
from common.data.slices import tumour_share
from common.errors import DataError
from common.files import write_atomic

Lesions = npt.NDArray[np.uint8]


def with_lesions(patients: SiteData, site: Site, data: DataConfig, cache: Path) -> SiteData:
    """The site's patients, as `open_site` gave them, with `lesions` filled in.

    Args:
        patients: those of the site who are used.
        site: as `read_site` found it.
        data: as for `open_site`.
        cache: the same folder.

    Raises:
        DataError: a mask that cannot be used, or a cache that cannot be written.
    """
    file = cache / f"{patients.key}.lesions.npz"
    shape = (len(patients), len(squares(data)), data.size, data.size)
    found = _load(file, shape)
    if found is None:
        found = np.stack([slice_lesion(case, data) for case in site.only(patients.ids).cases])
        packed = io.BytesIO()
        np.savez_compressed(packed, lesions=found)
        try:
            write_atomic(file, packed.getvalue())
        except OSError as error:
            raise DataError(f"Slice cache {cache}: {error}. Name a folder to write to (FEDMRI_CACHE).") from error
    return replace(patients, lesions=found)


def slice_lesion(case: Case, data: DataConfig) -> Lesions:
    """The part of each pixel of `slice_case`'s images that is tumour, [S, H, W] from 0 to `WHOLE`; zeros without a mask."""
    read = read_patient(case, data)
    if not read.tumour:
        return np.zeros((len(squares(data)), data.size, data.size), np.uint8)
    return np.round(tumour_share(read, data).clip(0, 1) * WHOLE).astype(np.uint8)


def _load(file: Path, shape: tuple[int, ...]) -> Lesions | None:
    """From the cache; None where it is absent or damaged (zip holds a checksum)."""
    try:
        with np.load(file, allow_pickle=False) as packed:
            found: Lesions = packed["lesions"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None
