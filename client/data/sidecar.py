"""What of a DICOM header stays: how the image was made, and nothing of whom, where or when.

An allow-list, so it keeps less than the Basic Application Level Confidentiality Profile of DICOM PS3.15 Annex E would let it: no
dates, times, UIDs, names, numbers, institutions, device serial numbers, private tags or free text.
"""

import re

from pydicom.dataset import Dataset

from client.data.dicom.header import number, value
from common.text import printable

Sidecar = dict[str, str | float | bool]

SECONDS = {"EchoTime": "EchoTime", "RepetitionTime": "RepetitionTime", "InversionTime": "InversionTime"}  # DICOM has milliseconds
NUMBERS = {"FlipAngle": "FlipAngle", "MagneticFieldStrength": "MagneticFieldStrength", "SliceThickness": "SliceThickness"}
CODES = {
    "Manufacturer": "Manufacturer",
    "ManufacturerModelName": "ManufacturersModelName",
    "MRAcquisitionType": "MRAcquisitionType",
    "ContrastBolusIngredient": "ContrastBolusIngredient",
}
_PLAIN = re.compile(r"[A-Za-z0-9 ._+/()-]{1,40}")


def sidecar(dataset: Dataset) -> Sidecar:
    """What a BIDS sidecar keeps of a series, under BIDS's names: seconds, degrees, tesla, millimetres.

    Args:
        dataset: header of one of its files.
    """
    kept: Sidecar = {"Modality": "MR"}
    for tag, name in SECONDS.items():
        milliseconds = number(dataset, tag)
        if milliseconds is not None:
            kept[name] = round(milliseconds / 1000, 6)
    for tag, name in NUMBERS.items():
        found = number(dataset, tag)
        if found is not None:
            kept[name] = round(found, 4)
    for tag, name in CODES.items():
        text = printable(str(value(dataset, tag) or ""), 40)
        if _PLAIN.fullmatch(text) and not re.search(r"\d{5}", text):  # a long number would be a serial or a patient's
            kept[name] = text
    return kept
