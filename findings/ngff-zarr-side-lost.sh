#!/usr/bin/env bash
# Guess:     a NIfTI file that the command `ngff-zarr` turns into OME-Zarr (whose RFC 4 gives each axis its anatomical orientation) comes back
#            with the patient's sides where they were; if a side could not be kept, it would say so.
# Seen:      ngff-zarr 0.50.0, Python 3.11, 2026-11-30. For .nii it takes its nibabel reader and writes the orientation as a bare string, where RFC
#            4 has an object of type and value. Its own reader passes over that, and takes the origin (right, front) for one of left and rear:
#            of an RAS image the lesion at 30 mm left, 50 front comes back at 30 right, 50 rear; of an LAS one, 30 right at 110 left. Exit code
#            0, nothing printed. With `--input-backend itkwasm_image_io` the same files come back right.
# Matters:   the side of a tumour is wrong at the hospital that stores OME-Zarr from NIfTI and right at the one that stores it from .mha, and the
#            arrays and voxel sizes agree. Convert with that option, or compare one voxel's place after the round trip.
# Exit:      0 as long as it behaves so, 1 when it does not any more.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  ngff-zarr==0.50.0 zarrista==0.1.0 itkwasm==1.0b201 itkwasm-image-io==1.6.1 dask==2026.8.0 nibabel==5.4.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import json
import subprocess
import sys
from pathlib import Path
import nibabel as nib
import ngff_zarr
import numpy as np

root = Path(sys.argv[1])
values = np.zeros((80, 100, 60), np.int16)
values[20, 70, 40] = 1000  # the lesion: one voxel


def back(name, *options):
    """Where the lesion lies (mm to the right, front and head, as in NIfTI) after NIfTI -> OME-Zarr -> ITK image, and what the file has of x."""
    store = root / f"{name}{len(options)}.ome.zarr"
    tool = Path(sys.executable).with_name("ngff-zarr")
    done = subprocess.run([tool, "-q", "-i", root / f"{name}.nii.gz", "-o", store, *options], capture_output=True, text=True)
    if done.returncode or done.stdout + done.stderr:
        sys.exit(f"not silent: exit {done.returncode}, {done.stdout + done.stderr}")
    (x,) = [a for a in json.loads((store / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]["axes"] if a["name"] == "x"]
    image = ngff_zarr.ngff_image_to_itk_image(ngff_zarr.from_ngff_zarr(str(store)).images[0], wasm=True)
    k, j, i = np.argwhere(np.asarray(image.data) == 1000)[0]
    left, rear, head = np.asarray(image.direction).reshape(3, 3) @ (np.array(image.spacing) * [i, j, k]) + image.origin
    return [round(float(v), 3) for v in (-left, -rear, head)], x["orientation"]


seen = {}
for name, sign in (("RAS", 1), ("LAS", -1)):
    affine = np.diag([sign * 2.0, 2, 3, 1])
    affine[:3, 3] = [-70 * sign, -90, -60]
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, root / f"{name}.nii.gz")
    true = [float(v) for v in (affine @ [20, 70, 40, 1])[:3]]
    plain, plain_x = back(name)
    itk, itk_x = back(name, "--input-backend", "itkwasm_image_io")
    print(f"{name}: lesion at {true} mm")
    print(f"  by default (nibabel): {plain} mm; in the file, x is {plain_x!r}")
    print(f"  by --input-backend itkwasm_image_io: {itk} mm; in the file, x is {itk_x!r}")
    seen[name] = (true == itk, itk_x["type"], plain, plain_x)
ras, las = [30.0, -50.0, 60.0], [-110.0, -50.0, 60.0]
expected = {"RAS": (True, "anatomical", ras, "left-to-right"), "LAS": (True, "anatomical", las, "right-to-left")}
sys.exit(0 if seen == expected else 1)
PY
