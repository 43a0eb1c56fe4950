#!/usr/bin/env bash
# Guess:     dcm2niix writes every slice of a classic series, in whatever order they are numbered; at worst it exits non-zero.
# Seen:      dcm2niix 1.0.20260724, Python 3.11, 2026-11-29. A Siemens series of ten slices, numbered as acquired (0 2 4 6 8 1 3 5 7 9), whose
#            Repetition Time is there but empty (type 2C may be): a NIfTI file of FIVE slices, exit code 0; one line on stdout says "Slices
#            skipped". With a Repetition Time, or from another maker, all ten. The numbers of slices and the spacing look like a thick series.
# Matters:   de-identified and old archives have empty times; every second slice of a tumour is gone, and the sidecar does not say so. Count
#            the input files against the output's slices.
# Exit:      0 as long as it behaves so, 1 when it does not any more.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check dcm2niix==1.0.20260724 pydicom==3.0.2 nibabel==5.4.2 "numpy>=2,<3"
"$folder/venv/bin/python" - "$folder" <<'PY'
import subprocess
import sys
from pathlib import Path
import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

root = Path(sys.argv[1])


def convert(name, maker, repetition):
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    (root / name / "in").mkdir(parents=True)
    (root / name / "out").mkdir()
    for number, k in enumerate([0, 2, 4, 6, 8, 1, 3, 5, 7, 9], start=1):
        d = Dataset()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = MRImageStorage
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study, series, frame
        d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = "A", "1", "", ""
        d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber, d.ReferringPhysicianName = "20240301", "101500", "1", "", ""
        d.Modality, d.Manufacturer, d.SeriesNumber, d.InstanceNumber = "MR", maker, 1, number
        d.ImageType, d.PatientPosition, d.PositionReferenceIndicator = ["ORIGINAL", "PRIMARY", "M"], "HFS", ""
        d.ScanningSequence, d.SequenceVariant, d.ScanOptions, d.MRAcquisitionType = "SE", "SK", "", "2D"
        d.RepetitionTime, d.EchoTime, d.EchoTrainLength, d.AcquisitionNumber = repetition, 90.0, 1, 1
        d.Rows = d.Columns = 16
        d.PixelSpacing, d.SliceThickness, d.SpacingBetweenSlices = [1, 1], 3, 3
        d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3 * k]
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated = d.BitsStored = 16
        d.HighBit, d.PixelRepresentation = 15, 0
        d.PixelData = np.full((16, 16), 100 * k + 50, np.uint16).tobytes()
        d.save_as(root / name / "in" / f"{number:03d}.dcm", enforce_file_format=True)
    tool = Path(sys.executable).with_name("dcm2niix")
    done = subprocess.run([tool, "-z", "n", "-o", root / name / "out", root / name / "in"], capture_output=True, text=True)
    images = [nib.load(f) for f in sorted((root / name / "out").glob("*.nii"))]
    slices = sum(image.shape[2] for image in images)
    print(f"{name}: exit {done.returncode}, {slices} of 10 slices, {[tuple(map(float, i.header.get_zooms())) for i in images]} mm")
    return done.returncode, slices


empty = convert("Siemens, Repetition Time empty", "SIEMENS", None)
told = convert("Siemens, Repetition Time 4000", "SIEMENS", 4000.0)
other = convert("GE, Repetition Time empty", "GE MEDICAL SYSTEMS", None)
sys.exit(0 if empty == (0, 5) and told == other == (0, 10) else 1)
PY
