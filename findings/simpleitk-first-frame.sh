#!/usr/bin/env bash
# Guess:     SimpleITK reads an enhanced (multi-frame) MR like the same slices in single files: each frame with its own Rescale Slope, at its own
#            Image Position (Patient). Else it refuses, or warns.
# Seen:      SimpleITK 2.5.7, Python 3.11, 2026-11-30, on six slices of 100 to 600 that highdicom 0.28.2 makes one file of (Legacy Converted
#            Enhanced MR). The first frame's slope scales them all: 8, 40, 120, 320, 400, 600. Where the frames lie in the file as acquired,
#            interleaved, they stay in that order, 1 mm apart in place of 3. Not a word on stderr. Single files of the same slices come out
#            right, and highdicom reads all three files right.
# Matters:   the standard lets slope and order differ by frame. The hospital whose archive keeps enhanced files trains on brightness that jumps
#            from slice to slice, which no normalisation of the volume takes out, or on shuffled slices. Read the functional groups (highdicom,
#            dcm2niix), or refuse an enhanced file whose slopes differ or whose positions do not run on.
# Exit:      0 as long as it behaves so, 1 when it does not any more.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check SimpleITK==2.5.7 highdicom==0.28.2 pydicom==3.0.2 "numpy>=2,<3"
"$folder/venv/bin/python" - "$folder" 2> "$folder/said" <<'PY' || { cat "$folder/said" >&2; exit 1; }
import sys
import warnings
from pathlib import Path
import highdicom as hd
import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

root = Path(sys.argv[1])
warnings.simplefilter("ignore")  # highdicom's, in making the files; SimpleITK's go to stderr past Python
truth = [100, 200, 300, 400, 500, 600]  # what each slice holds, from foot to head, 3 mm apart


def single(k, slope, study, series, frame):
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = MRImageStorage
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study, series, frame
    d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = "A^B", "1", "", ""
    d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber, d.ReferringPhysicianName = "20240301", "101500", "1", "", ""
    d.AcquisitionDate, d.AcquisitionTime, d.ContentDate, d.ContentTime = "20240301", "101500", "20240301", "101500"
    d.Modality, d.Manufacturer, d.SeriesNumber, d.InstanceNumber = "MR", "Philips", 1, k + 1
    d.ImageType, d.PatientPosition, d.PositionReferenceIndicator = ["ORIGINAL", "PRIMARY", "M"], "HFS", ""
    d.ScanningSequence, d.SequenceVariant, d.ScanOptions, d.MRAcquisitionType = "SE", "SK", "", "2D"
    d.RepetitionTime, d.EchoTime, d.EchoTrainLength, d.AcquisitionNumber = 4000.0, 90.0, 1, 1
    d.Rows = d.Columns = 16
    d.PixelSpacing, d.SliceThickness, d.SpacingBetweenSlices = [1, 1], 3, 3
    d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3 * k]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated = d.BitsStored = 16
    d.HighBit, d.PixelRepresentation = 15, 0
    d.RescaleIntercept, d.RescaleSlope, d.RescaleType = 0, slope, "US"
    d.WindowCenter, d.WindowWidth = 300, 600
    d.PixelData = np.full((16, 16), round(truth[k] / slope), np.uint16).tobytes()
    return d


def stack(image):
    """{z in mm: value} of a SimpleITK image of uniform slices."""
    step, start = image.GetSpacing()[2] * image.GetDirection()[8], image.GetOrigin()[2]
    return {round(start + step * k, 3): round(float(v), 3) for k, v in enumerate(sitk.GetArrayFromImage(image)[:, 0, 0])}


def read(name, slopes, order):
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    slices = [single(k, slope, study, series, frame) for k, slope in enumerate(slopes)]
    (root / name).mkdir()
    for d in slices:
        d.save_as(root / name / f"{d.InstanceNumber}.dcm", enforce_file_format=True)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(root / name)))
    seen = {"SimpleITK, single files": stack(reader.Execute())}
    multi, file = hd.legacy.LegacyConvertedEnhancedMRImage(slices, generate_uid(), 2, generate_uid(), 1), root / f"{name}.dcm"
    pixels, groups = multi.pixel_array, list(multi.PerFrameFunctionalGroupsSequence)
    multi.PerFrameFunctionalGroupsSequence, multi.PixelData = [groups[k] for k in order], pixels[order].tobytes()
    multi.save_as(file)
    seen["SimpleITK, one enhanced file"] = stack(sitk.ReadImage(str(file)))
    volume = hd.imread(file).get_volume()
    seen["highdicom, one enhanced file"] = {round(float(volume.affine[2] @ [k, 0, 0, 1]), 3): float(v) for k, v in enumerate(volume.array[:, 0, 0])}
    print(f"{name}:")
    for who, values in seen.items():
        print(f"  {who}: " + ", ".join(f"{values[z]:g} at {z:g} mm" for z in sorted(values)))
    return list(seen.values())


drawn = {3 * k: v for k, v in enumerate(truth)}
plain = read("one slope", [1] * 6, [0, 1, 2, 3, 4, 5])
slopes = read("a slope for each slice", [2.5, 1, 0.5, 0.25, 0.25, 0.2], [0, 1, 2, 3, 4, 5])
order = read("frames as acquired, interleaved", [1] * 6, [0, 2, 4, 1, 3, 5])
scaled = {0: 8, 3: 40, 6: 120, 9: 320, 12: 400, 15: 600}
shuffled = {15: 600, 16: 400, 17: 200, 18: 500, 19: 300, 20: 100}
sys.exit(0 if plain == [drawn] * 3 and slopes == [drawn, scaled, drawn] and order == [drawn, shuffled, drawn] else 1)
PY
if [ -s "$folder/said" ]; then echo "not silent any more:"; cat "$folder/said"; exit 1; fi
