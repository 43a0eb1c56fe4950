#!/usr/bin/env bash
# Guess:     highdicom refuses a stack of slices that is no regular volume ("not a regularly-spaced volume"), so what it returns lies where the
#            headers say.
# Seen:      highdicom 0.28.2 with pydicom 3.0.2, Python 3.11, 2026-11-29. `get_volume_from_series` and `Image.get_volume` take slices whose
#            positions run up to 2.5 degrees beside the slices' normal (perpendicular_tol=1e-3 is a tolerance of the COSINE), and return an
#            orthogonal affine: the shear is gone, without a warning. 50 slices of 3 mm, 2 degrees: the far slice lies 5.1 mm off.
# Matters:   who converts hospitals' MRI with it displaces one end of the head against the other modalities, and no check downstream can tell.
#            Pass perpendicular_tol=1e-6, or compare the far slice with its Image Position (Patient).
# Exit:      0 as long as it behaves so, 1 when it does not any more.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check highdicom==0.28.2 pydicom==3.0.2 "numpy>=2,<3"
"$folder/venv/bin/python" - <<'PY'
import sys
import warnings
import numpy as np
import highdicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

study, series, frame = generate_uid(), generate_uid(), generate_uid()
sideways = float(np.tan(np.radians(2.0)))  # mm of shift in a row's direction, per mm along the normal


def slice_(k):
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = MRImageStorage
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study, series, frame
    d.Modality, d.InstanceNumber, d.ImageType = "MR", k + 1, ["ORIGINAL", "PRIMARY", "M"]
    d.Rows = d.Columns = 8
    d.PixelSpacing, d.SliceThickness = [1, 1], 3
    d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    d.ImagePositionPatient = [round(3 * k * sideways, 6), 0, 3 * k]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated = d.BitsStored = 16
    d.HighBit, d.PixelRepresentation = 15, 0
    d.PixelData = np.full((8, 8), k + 1, np.uint16).tobytes()
    return d


slices = [slice_(k) for k in range(50)]
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    volume = highdicom.get_volume_from_series(slices)
worst = 0.0
for index in range(volume.array.shape[0]):
    truth = np.array(slices[int(volume.array[index, 0, 0]) - 1].ImagePositionPatient, float)
    worst = max(worst, float(np.linalg.norm((volume.affine @ [index, 0, 0, 1])[:3] - truth)))
print(f"highdicom {highdicom.__version__}: a volume of {volume.array.shape}, warnings: {[str(w.message) for w in told]}")
print(f"largest distance between a slice's Image Position (Patient) and where the volume has it: {worst:.2f} mm")
try:
    highdicom.get_volume_from_series(slices, perpendicular_tol=1e-6)
    strict = "taken"
except ValueError as error:
    strict = f"refused ({error})"
print(f"with perpendicular_tol=1e-6: {strict}")
sys.exit(0 if worst > 4 and not told else 1)
PY
