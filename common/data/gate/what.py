"""What a file is, told from its first bytes: so that a message can say it, and not that a NIfTI file is damaged."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Other:
    """A kind of file that is not read.

    Attributes:
        what: it is.
        do: with it.
    """

    what: str
    do: str


DICOM = Other("a DICOM file", "Convert the series to NIfTI (fedmri-site import, or dcm2niix).")
ANNEX = Other("a pointer of git-annex, not the image", "Fetch the content: datalad get (or git annex get).")
LFS = Other("a pointer of Git LFS, not the image", "Fetch the content: git lfs pull.")
PAGE = Other("a web page, not the image", "Download it anew, logged in.")
CONVERT = "Convert it to NIfTI (.nii.gz)."
STARTS = (
    (b"NRRD000", Other("a NRRD file", CONVERT)),
    (b"ObjectType", Other("a MetaImage header (.mha, .mhd)", CONVERT)),
    (b"NDims", Other("a MetaImage header (.mha, .mhd)", CONVERT)),
    (b"\x89HDF\r\n\x1a\n", Other("an HDF5 file (MINC 2, or MATLAB 7.3)", CONVERT)),
    (b"CDF\x01", Other("a NetCDF file (MINC 1)", CONVERT)),
    (b"\x89PNG", Other("a PNG picture", "Export the volume, not a picture of it.")),
    (b"\xff\xd8\xff", Other("a JPEG picture", "Export the volume, not a picture of it.")),
    (b"BM", Other("a BMP picture", "Export the volume, not a picture of it.")),
    (b"II*\x00", Other("a TIFF picture", CONVERT)),
    (b"MM\x00*", Other("a TIFF picture", CONVERT)),
    (b"%PDF", Other("a PDF document", "Export the volume.")),
    (b"PK\x03\x04", Other("a ZIP archive", "Unpack it.")),
    (b"7z\xbc\xaf", Other("a 7-Zip archive", "Unpack it.")),
    (b"Rar!", Other("a RAR archive", "Unpack it.")),
    (b"BZh", Other("compressed with bzip2", "Unpack it, and compress it with gzip.")),
    (b"\xfd7zXZ", Other("compressed with xz", "Unpack it, and compress it with gzip.")),
    (b"\x28\xb5\x2f\xfd", Other("compressed with Zstandard", "Unpack it, and compress it with gzip.")),
    (b"\x93NUMPY", Other("a NumPy array without voxel sizes and orientation", "Save it as NIfTI, with the affine of its image.")),
    (b"MATLAB 5.0", Other("a MATLAB file", CONVERT)),
    (b"version https://git-lfs", LFS),
    (b"/annex/objects/", ANNEX),
    (b"../", ANNEX),
    (b"<!DOCTYPE", PAGE),
    (b"<!doctype", PAGE),
    (b"<html", PAGE),
    (b"<?xml", Other("an XML file (a surface, or an error message)", CONVERT)),
)
MGH_TYPES = (0, 1, 3, 4)
MGH = Other("a FreeSurfer volume (.mgh, .mgz)", "Convert it: mri_convert FILE.mgz FILE.nii.gz.")


def other_kind(raw: bytes) -> Other | None:
    """What unpacked bytes are where they are a known kind of file that is not read; None where they are none."""
    if raw[128:132] == b"DICM" or raw[:8] in (b"\x08\x00\x00\x00UL", b"\x08\x00\x05\x00CS") or raw[:4] == b"DICM":
        return DICOM
    start = raw[:64].lstrip()
    found = next((other for magic, other in STARTS if start.startswith(magic)), None)
    if found:
        return found
    numbers = [int.from_bytes(raw[at : at + 4], "big") for at in range(0, 24, 4)]
    if len(raw) >= 284 and numbers[0] == 1 and all(0 < n < 2**15 for n in numbers[1:5]) and numbers[5] in MGH_TYPES:
        return MGH
    if b"\0" not in raw[:512] and raw[:512].strip() and _is_text(raw[:512]):
        first = raw[:512].decode("ascii").split("\n")[0][:40]
        return Other(f"a text file that begins with {first!r}", "Put the image in its place.")
    return None


def _is_text(raw: bytes) -> bool:
    return all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in raw)
