"""One DICOM file of one frame becomes the picture that a viewer shows: an X-ray (CR, DX), a photograph, a capture of the screen.

Values go the way of DICOM's display pipeline (PS3.3 C.11.1, C.11.2 and C.7.6.3.1.2): rescale or modality table, then the file's
first table or window of interest; where it has neither, the range of its pixels. MONOCHROME1 is turned round, so that more is
brighter. The picture is not turned or mirrored: rows and columns lie as they are stored.

h rows, w columns.
"""

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.data.gate.finding import Finding
from common.data.gate.picture_kinds import BURNED_IN, MOVING, NO_PYDICOM, NOT_READ, grey_note, out

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

ENDS = (".dcm", ".dicom")
DEEPEST = 65535  # levels of grey that are kept are of 16 bits
# Transfer syntaxes that compress no pixels: implicit, explicit, deflated as a whole, and big endian.
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
GREYS = ("MONOCHROME1", "MONOCHROME2")
DO = "Export the image itself, or convert it to PNG."

Values = NDArray[np.float64]


# How far apart rows and columns lie, in the order of how directly it is said (PS3.3 C.7.6.3.1.7, 10.7.1.3)
SPACINGS = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def grey_of(content: bytes, name: str) -> tuple[NDArray[np.integer], tuple[float, float], list[Finding]]:
    """A file's picture [h, w]: 0 to 65535 from the darkest to the brightest that its window shows; colours, 8 bits of brightness.

    With it how far apart rows and columns lie, in any unit, and what is to be said.

    Args:
        content: of the file.
        name: of the file in findings.

    Raises:
        StaysOutError: it cannot be used; its one finding names the file, and no patient.
    """
    try:
        import pydicom  # noqa: F401, PLC0415  an extra: sites without DICOM pictures need not have it
    except ImportError as error:
        do = "Install it: pip install 'fedmri[import]'. Or convert the picture to PNG."
        raise out(NO_PYDICOM, "a DICOM file, and pydicom is not installed", "pydicom", do, name) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that a device wrote longer than the standard allows
        dataset = _opened(content, name)
        stored = _decoded(dataset, name)
        try:
            grey, findings = _shown(dataset, stored, name)
            steps = _steps(dataset)
        except (ValueError, AttributeError, KeyError, TypeError, NotImplementedError, IndexError) as error:
            raise out(NOT_READ, f"DICOM whose values cannot be made a picture ({_line(error)})", "a picture", DO, name) from error
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        do = "Look at it. A model may learn from the text, and pictures in reports show it: black it out where it names anybody."
        findings.append(BURNED_IN.finding("says that text is burned into it (Burned In Annotation)", "no text", do, file=name))
    return grey, steps, findings


def _steps(dataset: "Dataset") -> tuple[float, float]:
    """Between rows, and between columns; the same where the file says nothing."""
    told = next((dataset[keyword].value for keyword in SPACINGS if dataset.get(keyword)), (1.0, 1.0))
    rows, columns = (float(value) for value in told)
    if not (0 < rows < np.inf and 0 < columns < np.inf):
        raise ValueError(f"rows {rows:g} apart and columns {columns:g}")
    return rows, columns


def _opened(content: bytes, name: str) -> "Dataset":
    """The data set of one image of one frame."""
    from pydicom import dcmread  # noqa: PLC0415
    from pydicom.errors import InvalidDicomError  # noqa: PLC0415

    try:
        dataset = dcmread(io.BytesIO(content))
        rows, frames = dataset.get("Rows"), int(dataset.get("NumberOfFrames") or 1)
    except InvalidDicomError as error:
        raise out(NOT_READ, "no DICOM file, under a name of one", "a DICOM file of one frame", DO, name) from error
    except Exception as error:  # a damaged file can fail anywhere inside pydicom
        raise out(NOT_READ, f"a damaged DICOM file ({_line(error)})", "a whole one", "Copy it anew.", name) from error
    if not rows or "PixelData" not in dataset:
        what = getattr(dataset.get("SOPClassUID"), "name", "") or "no kind is named"
        raise out(NOT_READ, f"DICOM without a picture ({what})", "an image", DO, name)
    if frames > 1:
        raise out(MOVING, f"{frames} frames in one DICOM file", "one", "Export one frame.", name)
    return dataset


def _decoded(dataset: "Dataset", name: str) -> NDArray[Any]:
    """The stored pixels, [h, w] or [h, w, 3]; of a luminance and two colour differences red, green and blue."""
    from pydicom.pixels.utils import pixel_array  # noqa: PLC0415

    try:
        return pixel_array(dataset)
    except Exception as error:  # a damaged stream can fail anywhere inside a decoder
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        if syntax is None or syntax in PLAIN:
            raise out(NOT_READ, f"DICOM whose pixels cannot be read ({_line(error)})", "pixels", "Copy it anew.", name) from error
        do = "Decompress it (gdcmconv --raw), install the import extra (pip install 'fedmri[import]'), or convert it to PNG."
        raise out(NOT_READ, f"DICOM compressed as {syntax.name}, which cannot be decoded", "pixels", do, name) from error


def _shown(dataset: "Dataset", stored: NDArray[Any], name: str) -> tuple[NDArray[np.integer], list[Finding]]:
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric in GREYS:
        return _monochrome(dataset, stored, inverted=photometric == GREYS[0]), []
    from PIL import Image  # noqa: PLC0415  sites of MRI need not have it
    from pydicom.pixels.processing import apply_color_lut  # noqa: PLC0415

    colours = apply_color_lut(stored, dataset) if photometric == "PALETTE COLOR" else stored
    if colours.ndim != 3 or colours.shape[2] != 3:
        raise ValueError(f"{photometric or 'no photometric interpretation'}, {' x '.join(map(str, colours.shape))} values")
    depth = 8 * colours.dtype.itemsize if photometric == "PALETTE COLOR" else int(dataset.BitsStored)
    narrowed = (colours.astype(np.float64) * 255 / (2**depth - 1)).round().astype(np.uint8)  # of 8 bits the same
    return np.asarray(Image.fromarray(narrowed).convert("L")), [grey_note(photometric, name)]


def _monochrome(dataset: "Dataset", stored: NDArray[Any], *, inverted: bool) -> NDArray[np.integer]:
    from pydicom.pixels.processing import apply_modality_lut  # noqa: PLC0415

    there = ~_padding(dataset, stored)
    values = np.asarray(apply_modality_lut(stored, dataset), np.float64)
    part = _of_interest(dataset, values)
    if part is None:
        low, high = (float(f(values[there])) if there.any() else 0.0 for f in (np.min, np.max))
        part = (values - low) / (high - low) if high > low else np.zeros_like(values)
    brightness = np.where(there, 1 - part if inverted else part, 0.0)
    return (brightness.clip(0, 1) * DEEPEST).round().astype(np.uint16)


def _padding(dataset: "Dataset", stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Which pixels are no part of the image (PS3.3 C.7.5.1.1.2): they stay black, also where MONOCHROME1 is turned round."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    ends = sorted((int(first), int(dataset.get("PixelPaddingRangeLimit", first))))
    return np.asarray((stored >= ends[0]) & (stored <= ends[1]))


def _of_interest(dataset: "Dataset", values: Values) -> Values | None:
    """What the file's first table or window makes of values: 0 to 1; None where it has neither."""
    if dataset.get("VOILUTSequence"):
        from pydicom.pixels.processing import apply_voi  # noqa: PLC0415

        table = dataset.VOILUTSequence[0]
        shown: Values = np.asarray(apply_voi(values.astype(np.int64), dataset), np.float64)
        return shown / (2.0 ** int(table.LUTDescriptor[2]) - 1)  # of all bits that it names, which is often more than it uses
    centre, width = (_first(dataset.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    return _windowed(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR").upper())


def _windowed(values: Values, centre: float, width: float, function: str) -> Values:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, for an output of 0 to 1."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width <= 0:
        return (values > centre).astype(np.float64)
    return ((values - centre) / width + 0.5).clip(0, 1)


def _first(found: Any) -> float | None:
    """The first of one or several numbers."""
    if found is None or found == "":
        return None
    several = not isinstance(found, str | int | float) and hasattr(found, "__getitem__")
    return (float(found[0]) if len(found) else None) if several else float(found)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
