#!/usr/bin/env bash
# Guess:     dcm2niix refuses a DICOM Label Map Segmentation (the new SOP class), or lays each frame where its Image Position (Patient) says.
# Seen:      dcm2niix 1.0.20260724 on what highdicom 0.28.2 writes, Python 3.11, 2026-11-30. highdicom leaves slices without a label out by
#            default. Of 12 slices of 3 mm, lesion 1 is on those at 6 and 9 mm, lesion 2 on those at 24 and 27: four frames. dcm2niix
#            stacks them up to the last one: a NIfTI file of four slices, lesion 1 at 18 and 21 mm, touching lesion 2; exit code 0, no word of
#            it. With `omit_empty_frames=False` all is right, and highdicom's own reader is right on both.
# Matters:   a second tumour moves by the gap between the two, while volumes and label ids agree. The mask has fewer slices than the image, as
#            has any mask cropped to its lesions, so who resamples masks onto images sees nothing. Read segmentations with highdicom, onto the
#            image's grid.
# Exit:      0 as long as it behaves so, 1 when it does not any more.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check dcm2niix==1.0.20260724 highdicom==0.28.2 pydicom==3.0.2 nibabel==5.4.2 "numpy>=2,<3"
"$folder/venv/bin/python" - "$folder" <<'PY'
import subprocess
import sys
from pathlib import Path
import highdicom as hd
import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

root = Path(sys.argv[1])
study, series, frame = generate_uid(), generate_uid(), generate_uid()


def slice_(k):
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = MRImageStorage
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study, series, frame
    d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = "A^B", "1", "", ""
    d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber, d.ReferringPhysicianName = "20240301", "101500", "1", "", ""
    d.Modality, d.Manufacturer, d.SeriesNumber, d.InstanceNumber = "MR", "Philips", 1, k + 1
    d.ImageType, d.PatientPosition, d.PositionReferenceIndicator = ["ORIGINAL", "PRIMARY", "M"], "HFS", ""
    d.Rows = d.Columns = 16
    d.PixelSpacing, d.SliceThickness, d.SpacingBetweenSlices = [1, 1], 3, 3
    d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3 * k]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated = d.BitsStored = 16
    d.HighBit, d.PixelRepresentation = 15, 0
    d.PixelData = np.full((16, 16), 100, np.uint16).tobytes()
    return d


slices = [slice_(k) for k in range(12)]
labels = np.zeros((12, 16, 16), np.uint8)
labels[2:4, 2:6, 2:6], labels[8:10, 8:12, 8:12] = 1, 2  # one lesion at z = 6 and 9 mm, another at 24 and 27 mm
lesion = {
    "segmented_property_category": codes.SCT.MorphologicallyAbnormalStructure,
    "segmented_property_type": codes.SCT.Neoplasm,
    "algorithm_type": hd.seg.SegmentAlgorithmTypeValues.MANUAL,
}


def places(stack, line):
    """Where each label lies (mm along z) in a stack whose slice k is at line[0] * k + line[1]."""
    return {n: sorted(round(float(line[0] * k + line[1])) for k, plane in enumerate(stack) if (plane == n).any()) for n in (1, 2)}


where = places(labels, (3, 0))
print(f"drawn:                 {where} mm")


def convert(name, **options):
    folder, out = root / name / "in", root / name / "out"
    folder.mkdir(parents=True)
    out.mkdir()
    hd.seg.Segmentation(
        source_images=slices, pixel_array=labels, segmentation_type=hd.seg.SegmentationTypeValues.LABELMAP,
        segment_descriptions=[hd.seg.SegmentDescription(n, f"lesion {n}", **lesion) for n in (1, 2)],
        series_instance_uid=generate_uid(), series_number=2, sop_instance_uid=generate_uid(), instance_number=1,
        manufacturer="A", manufacturer_model_name="B", software_versions="1", device_serial_number="1", **options,
    ).save_as(folder / "segmentation.dcm")  # fmt: skip
    tool = Path(sys.executable).with_name("dcm2niix")
    done = subprocess.run([tool, "-z", "n", "-o", out, folder], capture_output=True, text=True)
    (image,) = [nib.load(f) for f in out.glob("*.nii")]
    seen = places(np.moveaxis(np.asarray(image.dataobj), 2, 0), image.affine[2, [2, 3]])
    print(f"dcm2niix, {name}: {seen} mm, {image.shape[2]} slices, exit {done.returncode}")
    for line in (done.stdout + done.stderr).splitlines():
        print(f"    {line.replace(str(root), '')}")
    volume = hd.seg.segread(folder / "segmentation.dcm").get_volume(combine_segments=True)
    own = places(volume.array, volume.affine[2, [0, 3]])
    print(f"highdicom, {name}: {own} mm, {len(volume.array)} slices")
    return done.returncode, seen, own


gap = convert("as highdicom writes it")
full = convert("with the empty frames", omit_empty_frames=False)
sys.exit(0 if gap == (0, {1: [18, 21], 2: [24, 27]}, where) and full == (0, where, where) else 1)
PY
