"""A proposed mask as NIfTI, in the patient's own space: the shape, the axes and the affine of the image that it was made for."""

import gzip
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from client.predict.proposal import Proposal

DESCRIPTION = b"proposed by a model (FedMRI)"  # NIfTI has 80 bytes for it
NAME = "proposed-tumour"  # no pattern of drawn masks (`common.config.modalities.MASKS`) takes it for one


def as_stored(proposal: Proposal) -> NDArray[np.uint8]:
    """The mask with the axes of the image's file, 1 where tumour is proposed.

    Raises:
        ValueError: the reference was not read from a file.
    """
    header = proposal.reference.header
    if header is None:
        raise ValueError("expected a reference that was read from a file")
    back = ornt_transform(axcodes2ornt("RAS"), io_orientation(header.affine))
    stored: NDArray[np.uint8] = apply_orientation(proposal.mask.astype(np.uint8), back)
    if stored.shape != tuple(header.shape[:3]):
        raise ValueError(f"expected the shape of the image, {header.shape}; got {stored.shape}")
    return stored


def nifti_of(proposal: Proposal) -> bytes:
    """The file, gzipped; equal masks give equal bytes."""
    values, header = as_stored(proposal), proposal.reference.header
    assert header is not None
    image: Any = Nifti1Image(values, header.affine)
    image.header["descrip"] = DESCRIPTION
    image.header.set_xyzt_units("mm")
    for place in (image.set_sform, image.set_qform):
        place(header.affine, code=1)
    return gzip.compress(image.to_bytes(), mtime=0)
