"""How `fedmri-site check` grows with a site: processor seconds and the most memory, for more and more patients.

    PYTHONPATH=. python bench/check_growth.py [--patients 125 250 500 1000] [--step 2]

Each patient is one of four phantoms with a smooth field of their own over all modalities, so that no two are one person; every
`--step`-th voxel in the plane. Sites of each size are checked in a process of their own, with everything that `check` knows; the
exponent is that of seconds over patients, fitted by least squares in logarithms.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from common.config.modalities import MODALITIES
from common.config.run import RunConfig
from common.data.cases import read_site
from common.data.check import check_site
from simulation.phantom.hospitals import Patient, simulate_patient
from simulation.phantom.sites import EXTERNAL_HOSPITAL

HOSPITAL = replace(EXTERNAL_HOSPITAL, missing={})


def write_site(root: Path, people: list[Patient], count: int, step: int) -> None:
    """BIDS, with masks and a table."""
    affine = HOSPITAL.scanner.affine @ np.diag([step, step, 1, 1])
    rows = ["participant_id\tsubtype"]
    for number in range(count):
        name, one = f"sub-{number:04d}", people[number % len(people)]
        field = ndimage.gaussian_filter(np.random.default_rng(number).normal(size=one.scan.mask[::step, ::step].shape), 2)
        field = np.exp(0.4 * field / field.std())
        folder = root / name / "anat"
        folder.mkdir(parents=True)
        volumes = {MODALITIES[m].suffix: np.rint(voxels[::step, ::step] * field) for m, voxels in one.scan.images.items()}
        for suffix, voxels in {**volumes, "desc-tumour_mask": one.scan.mask[::step, ::step]}.items():
            nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), folder / f"{name}_{suffix}.nii.gz")
        rows.append(f"{name}\t{one.subtype}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")


def measure(root: Path, count: int) -> tuple[float, float, int]:
    """Processor seconds, MiB at the most and how many findings there are, of the site's first patients."""
    run, began = RunConfig(), time.process_time()
    site = read_site(root, run)
    found = check_site(site.only([case.id for case in site.cases[:count]]), run)
    return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(found.findings)


def main() -> None:
    """Print one row a size, and the exponent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", default=[125, 250, 500, 1000])
    parser.add_argument("--step", type=int, default=2)
    arguments = parser.parse_args()
    people = [simulate_patient(HOSPITAL, number, 7) for number in range(4)]
    seconds = []
    print("| patients | processor s | s a patient | MiB | findings |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_site(Path(folder), people, max(arguments.patients), arguments.step)
        for count in arguments.patients:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                took, memory, findings = pool.apply(measure, (Path(folder), count))
            seconds.append(took)
            print(f"| {count} | {took:.1f} | {took / count:.4f} | {memory:.0f} | {findings} |", flush=True)
    if len(seconds) > 1:
        print(f"exponent {np.polyfit(np.log(arguments.patients), np.log(seconds), 1)[0]:.3f}")


if __name__ == "__main__":
    main()
