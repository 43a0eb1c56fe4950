"""One picture (PNG, JPEG, DICOM) becomes a volume of one slice, for runs on images that are no MRI: chest X-rays, fundus, skin.

A picture has no voxel sizes: its longer edge counts as `EDGE` mm, so that `data.field_of_view = 100.0` is all of it, and less is
its middle. Where a DICOM file says that its pixels are not square, they are taken as it says. Colours become grey, for the
model's patches are of one channel a modality.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.data.gate import dicom_picture
from common.data.gate.finding import Finding, StaysOutError
from common.data.gate.picture_kinds import MOVING, NOT_READ, TURNED, grey_note, out
from common.data.gate.what import other_kind
from common.data.volumes import Header, Volume, levels_of

EDGE = 100.0  # mm that the longer edge stands for
ENDS = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
ORIENTATION = 0x0112  # in EXIF: how a camera was held
WIDE = "I;16"  # grey of 16 bits, in Pillow's words

DO = "Convert it to PNG, best of 8 or 16 bits of grey."


def is_picture(file: Path) -> bool:
    """By its name."""
    return file.suffix.lower() in (*ENDS, *dicom_picture.ENDS)


def read_picture(file: Path, name: str) -> tuple[Volume, tuple[Finding, ...]]:
    """Read a picture as a volume that is cut into the same picture: columns to the patient's left, rows to the back.

    Args:
        file: PNG, JPEG or DICOM.
        name: of the file in findings.

    Raises:
        StaysOutError: it cannot be used; its one finding names the file, and no patient.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        told = f"cannot be read ({error.strerror})"
        raise out(NOT_READ, told, "a readable file", "Mend it, or its rights.", name) from error
    deep = file.suffix.lower() in dicom_picture.ENDS
    grey, (down, across), findings = dicom_picture.grey_of(content, name) if deep else _square(content, name)
    unit = EDGE / max(grey.shape[0] * down, grey.shape[1] * across)
    steps = (unit * across, unit * down, unit * across)
    stored = np.ascontiguousarray(grey[::-1, ::-1].T)[:, :, None]
    header = Header("picture", stored.shape, str(stored.dtype), pixdim=steps)
    levels = levels_of(stored, lambda raw: raw.astype(np.float32))
    return Volume(stored.astype(np.float32), np.diag([*steps, 1.0]), header, levels), tuple(findings)


def _square(content: bytes, name: str) -> tuple[NDArray[np.integer], tuple[float, float], list[Finding]]:
    """Of a file whose pixels are square."""
    grey, findings = _grey(content, name)
    return grey, (1.0, 1.0), findings


def _grey(content: bytes, name: str) -> tuple[NDArray[np.integer], list[Finding]]:
    """[rows, columns], of 8 or 16 bits."""
    from PIL import Image, ImageOps  # noqa: PLC0415  sites of MRI need not have it

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            frames = int(getattr(image, "n_frames", 1))
            if frames > 1:
                raise out(MOVING, f"{frames} pictures", "one", "Export one picture.", name)
            findings = list[Finding]()
            if image.getexif().get(ORIENTATION, 1) != 1:
                findings.append(
                    TURNED.finding("is turned by its EXIF", "rows from above", "Nothing needs to be done.", file=name)
                )
                ImageOps.exif_transpose(image, in_place=True)
            if image.mode in ("1", "L", WIDE, "I"):
                wide = image.mode in (WIDE, "I")
                return np.asarray(image).astype(np.uint16) if wide else np.asarray(image.convert("L")), findings
            findings.append(grey_note(image.mode, name))
            return np.asarray(image.convert("RGB").convert("L")), findings
    except StaysOutError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside Pillow
        other = other_kind(content)
        if other and not content.startswith((b"\x89PNG", b"\xff\xd8\xff")):
            raise out(NOT_READ, other.what, "a PNG or JPEG picture", DO, name) from error
        how = f"damaged ({str(error).partition(' <')[0]})" if content else "empty (0 bytes)"  # Pillow names objects in memory
        raise out(NOT_READ, how, "a whole PNG or JPEG picture", "Copy it anew.", name) from error
