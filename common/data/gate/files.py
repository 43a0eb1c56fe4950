"""One image file becomes a volume in RAS orientation, or a finding that says what the file is instead.

Read are NIfTI 1 and 2, single files and pairs (.hdr and .img), Analyze 7.5, gzipped or not, in either byte order; and pictures
(`common.data.gate.pictures`).
"""

import gzip
import math
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.volumeutils import apply_read_scaling

from common.data.gate.finding import Finding, Kind, Level, StaysOutError
from common.data.gate.pictures import is_picture, read_picture
from common.data.gate.what import other_kind
from common.data.volumes import Header, Volume, levels_of

UNREADABLE = Kind("file-unreadable", Level.ERROR, "the operating system does not hand out the file")
EMPTY = Kind("file-empty", Level.ERROR, "a file of no bytes")
TRUNCATED = Kind("file-truncated", Level.ERROR, "a file that breaks off: an interrupted copy, or a full disk")
DAMAGED = Kind("file-damaged", Level.ERROR, "a NIfTI file whose checksum or header is wrong")
OTHER = Kind("file-not-nifti", Level.ERROR, "another kind of file under the name of an image; the finding says which")
NO_PARTNER = Kind("file-half-of-a-pair", Level.ERROR, "an .hdr without its .img, or the other way round")
FRAMES = Kind("file-several-frames", Level.ERROR, "several frames or sequences in one file, or fewer than three axes")
COLOUR = Kind("file-colour", Level.ERROR, "a colour picture (RGB): a screenshot, or a fused map")
COMPLEX = Kind("file-complex", Level.WARNING, "complex numbers; their magnitude is used")
UNIT = Kind("unit-not-mm", Level.NOTE, "lengths in metres or micrometres, as the header says; they are converted")
NO_SPACE = Kind("affine-singular", Level.ERROR, "an affine that squeezes the image flat, or holds no numbers")
KINDS = (UNREADABLE, EMPTY, TRUNCATED, DAMAGED, OTHER, NO_PARTNER, FRAMES, COLOUR, COMPLEX, UNIT, NO_SPACE)
REMAKE = "Convert the series anew, and look at its header."
COPY = "Copy it anew."
GZIP = b"\x1f\x8b"
LARGEST = 1e15  # no image has such values; squares of larger ones run out of 32 bits, so they count as no numbers
UNITS = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}  # code in xyzt_units -> name, in mm
COLOURS = {128: "RGB24", 2304: "RGBA32"}  # datatype code -> name
HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # by sizeof_hdr
PAIR = {".img": ".hdr", ".hdr": ".img"}


def load_volume(file: Path, name: str = "") -> Volume:
    """Read an image file whole and turn it to RAS.

    Args:
        file: NIfTI or Analyze.
        name: the patient and the file as messages should name them; the default is the file's name.

    Raises:
        StaysOutError: it cannot be used.
    """
    return read_file(file, name or file.name)[0]


def read_file(file: Path, name: str) -> tuple[Volume, tuple[Finding, ...]]:
    """`load_volume`, and what the file made us decide.

    Raises:
        StaysOutError: it cannot be used; its one finding names `name` as the file, and no patient.
    """
    if is_picture(file):
        return read_picture(file, name)
    findings: list[Finding] = []
    try:
        header, content = _parts(file)
        image = _header(header, content)
        voxels = _voxels(image, content, findings)
        volume = _oriented(image, voxels, findings)
    except StaysOutError as out:
        raise out.named(name) from out
    except Exception as error:  # a damaged header can fail anywhere inside nibabel
        what = str(error) or type(error).__name__
        raise _refused(DAMAGED, f"a damaged NIfTI file ({what})", "a whole one", COPY).named(name) from error
    return volume, tuple(one.of("", name) for one in findings)


def companion(file: Path) -> Path | None:
    """The other half of a pair of .hdr and .img, where it is there."""
    stem, zipped = (file.with_suffix(""), file.suffix) if file.suffix == ".gz" else (file, "")
    other = PAIR.get(stem.suffix.lower())
    if other is None:
        return None
    tries = [stem.with_suffix(suffix + end) for suffix in (other, other.upper()) for end in (zipped, "", ".gz")]
    return next((path for path in tries if path.is_file()), None)


def _refused(kind: Kind, found: str, expected: str, do: str) -> StaysOutError:
    return StaysOutError([kind.finding(found, expected, do)])


def _parts(file: Path) -> tuple[bytes, bytes]:
    """Header and content, unpacked; of a single file the same bytes twice."""
    raw = _unpacked(file)
    suffix = (file.with_suffix("") if file.suffix == ".gz" else file).suffix.lower()
    if suffix not in PAIR or raw[344:348] == b"n+1\0" or raw[4:8] == b"n+2\0":
        return raw, raw
    other = companion(file)
    if other is None:
        wanted = PAIR[suffix]
        raise _refused(NO_PARTNER, f"no {wanted} beside the {suffix}", "both halves of the pair", f"Put the {wanted} beside it.")
    return (raw, _unpacked(other)) if suffix == ".hdr" else (_unpacked(other), raw)


def _unpacked(file: Path) -> bytes:
    if file.exists() and not file.is_file():  # reading a pipe would wait for ever
        raise _refused(UNREADABLE, "is no file (a folder, a pipe, a socket or a device)", "a file", "Put the image in its place.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _refused(UNREADABLE, f"cannot be read ({error.strerror})", "a readable file", "Mend it, or its rights.") from error
    if not content:
        raise _refused(EMPTY, "an empty file (0 bytes)", "an image", COPY)
    if content[:2] != GZIP:
        return content
    try:
        return gzip.decompress(content)
    except EOFError as error:
        text = f"truncated or damaged: the gzip breaks off after {len(content)} bytes"
        raise _refused(TRUNCATED, text, "a whole file", COPY) from error
    except gzip.BadGzipFile as error:
        text = f"damaged: after the gzip, or within it, stand bytes that are none of it ({error})"
        raise _refused(DAMAGED, text, "a whole file and nothing behind it", COPY) from error
    except (OSError, zlib.error) as error:
        raise _refused(DAMAGED, f"truncated or damaged: {error}", "a whole file", COPY) from error


def _header(header: bytes, content: bytes) -> Any:
    """A nibabel header that can be trusted so far that it names an array of numbers which is there."""
    size = next((n for n in (348, 540) for order in ("<i4", ">i4") if header[:4] == np.array(n, order).tobytes()), 0)
    if not size:
        if header[:2] == GZIP:
            text = "compressed twice: in the gzip lies another gzip, or a tar archive"
            raise _refused(OTHER, text, "a NIfTI file (.nii, .nii.gz)", "Unpack it once: gunzip FILE; then name it .nii.gz.")
        other = other_kind(header)
        if other:
            raise _refused(OTHER, other.what, "a NIfTI file (.nii, .nii.gz)", other.do)
        text = f"truncated or damaged: {len(header)} bytes that begin with no header of NIfTI"
        raise _refused(DAMAGED, text, "a NIfTI file (.nii, .nii.gz)", COPY)
    if len(header) < size:
        raise _refused(TRUNCATED, f"breaks off within the header, after {len(header)} bytes", "a whole file", COPY)
    kind: Any = HEADERS[size]
    image = kind(header[:size], endianness="<" if header[:4] == np.array(size, "<i4").tobytes() else ">", check=False)
    _check_array(image, content, single=header is content)
    return image


def _check_array(image: Any, content: bytes, *, single: bool) -> None:
    """Whether the array that the header names is there, and an array of numbers.

    Raises:
        StaysOutError: it is not.
    """
    axes = int(image["dim"][0])
    if not 1 <= axes <= 7 or (image["dim"][1 : axes + 1] < 1).any():
        raise _refused(DAMAGED, f"damaged: a header with dim {image['dim'].tolist()}", "1 to 7 axes of length 1 or more", COPY)
    code = int(image["datatype"])
    if code in COLOURS:
        raise _refused(COLOUR, f"a colour picture ({COLOURS[code]})", "grey values", "Export the sequence itself.")
    if code not in nib.nifti1.data_type_codes.code or image.get_data_dtype().kind not in "iufc":
        raise _refused(DAMAGED, f"damaged: a header with datatype {code}", "a type of numbers that NIfTI knows", COPY)
    wanted = image.get_data_dtype().itemsize * math.prod(int(n) for n in image.get_data_shape())
    there = len(content) - _offset(image, single)
    if there < wanted:
        text = f"truncated or damaged: {max(there, 0)} of the {wanted} bytes of voxels that the header names"
        raise _refused(TRUNCATED, text, "a whole file", COPY)


def _offset(image: Any, single: bool) -> int:
    """Of the voxels within the content."""
    offset = int(image["vox_offset"]) if np.isfinite(image["vox_offset"]) else 0
    return max(offset, image.single_vox_offset) if single else max(offset, 0)


def _voxels(image: Any, content: bytes, findings: list[Finding]) -> npt.NDArray[Any]:
    """The stored array with three axes, before slope and intercept."""
    shape, dtype = tuple(int(n) for n in image.get_data_shape()), image.get_data_dtype()
    single = image["magic"].item().rstrip(b"\0") in (b"n+1", b"n+2") or image.sizeof_hdr == 540
    count = int(np.prod(shape))
    raw = np.frombuffer(content, dtype, count, _offset(image, single)).reshape(shape, order="F")
    if len(shape) > 3 and count == int(np.prod(shape[:3])):
        raw = raw.reshape(shape[:3], order="F")
    if raw.ndim != 3:
        raise _refused(
            FRAMES, f"an array of {' x '.join(map(str, shape))}: {_axes(shape)}", "one 3D volume", _frames_advice(shape)
        )
    if dtype.kind == "c":
        findings.append(
            COMPLEX.finding(f"holds complex numbers ({dtype.name}); their magnitude is used", "magnitudes", "Look at it.")
        )
        raw = np.abs(raw)
    return raw


def _axes(shape: tuple[int, ...]) -> str:
    if len(shape) < 3:
        return "one slice without its place"
    if len(shape) == 4 and shape[0] == 1:
        return "an axis of length one stands first, so the affine speaks of other axes"
    return f"{int(np.prod(shape[3:]))} frames"


def _frames_advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and shape[0] == 1:
        return "Take the first axis away, and write the affine of the other three."
    return "Put each sequence into a file of its own; of a series over time take one frame or the mean."


def _oriented(image: Any, raw: npt.NDArray[Any], findings: list[Finding]) -> Volume:
    """The volume in RAS, scaled, in millimetres."""
    header = header_of(image)
    affine = header.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        text = f"an affine without volume ({'; '.join(' '.join(f'{v:.4g}' for v in row) for row in affine[:3])})"
        raise _refused(NO_SPACE, text, "voxel sizes and orientation in the header", REMAKE)
    if header.unit != 1:
        name = next(name for name, factor in UNITS.values() if factor == header.unit)
        text = f"lengths in {name}; read as voxels of {' x '.join(f'{v:.3g}' for v in np.linalg.norm(affine[:3, :3], axis=0))} mm"
        findings.append(UNIT.finding(text, "millimetres", "Nothing, if these sizes are right."))
    turns, back = _to_ras(affine.tobytes(), raw.shape)
    slope, inter = image.get_slope_inter()
    levels = levels_of(raw, lambda stored: _numbers(apply_read_scaling(stored, slope, inter)))
    voxels = apply_orientation(_numbers(apply_read_scaling(raw, slope, inter)), turns)  # a view: turning axes copies nothing
    return Volume(voxels, affine @ back, header, levels)


def _numbers(scaled: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """In 32 bits; what no image can hold is no number."""
    with np.errstate(over="ignore"):
        values = scaled.astype(np.float32)
    if values.size and not max(values.max(), -values.min()) <= LARGEST:  # so asked, NaN counts as too large
        values[~(np.abs(values) <= LARGEST)] = np.nan
    return values


@lru_cache(maxsize=64)
def _to_ras(affine: bytes, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How axes are turned to RAS, and the affine of the turned array within the stored one."""
    turns = io_orientation(np.frombuffer(affine).reshape(4, 4))
    return turns, inv_ornt_aff(turns, shape)


def header_of(image: Any) -> Header:
    """What a nibabel header says, unchanged."""
    slope, inter = image.get_slope_inter()
    unit = UNITS.get(int(image["xyzt_units"]) & 7, ("", 1.0))[1]
    q, s = int(image["qform_code"]), int(image["sform_code"])
    return Header(
        form="NIfTI-2" if image.sizeof_hdr == 540 else "NIfTI-1" if image["magic"].item() else "Analyze 7.5",
        shape=tuple(int(n) for n in image.get_data_shape()),
        dtype=str(image.get_data_dtype().name),
        slope=1.0 if slope is None else slope,
        inter=0.0 if inter is None else inter,
        pixdim=tuple(abs(float(v)) for v in image["pixdim"][1:4]),  # type: ignore[arg-type]
        unit=unit,
        qform_code=q,
        sform_code=s,
        qform=_in_mm(image.get_qform(), unit) if q > 0 else None,
        sform=_in_mm(image.get_sform(), unit) if s > 0 else None,
        affine=_in_mm(image.get_best_affine(), unit),
    )


def _in_mm(affine: npt.NDArray[Any], unit: float) -> npt.NDArray[np.float64]:
    scaled = np.array(affine, np.float64)
    scaled[:3] *= unit
    return scaled
