"""Phantom hospitals: BIDS folders of simulated patients that differ between sites as real ones do.

Same seed, same bytes. A patient depends on the seed, the site and its own number, not on how many others there are; only
which site has no labels (the last training site) follows from the number of sites.
"""

import functools
import gzip
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from common.errors import ConfigError
from common.files import sync_folder
from simulation.phantom.anatomy import grow_head, sample_build
from simulation.phantom.broken import break_images
from simulation.phantom.lesion import Lesion, grow_lesion, sample_age, sample_lesion
from simulation.phantom.scanner import SUBSLICES, Scan, acquire
from simulation.phantom.sites import EXTERNAL, Hospital, broken_hospitals, hospital, label_sequence

SUFFIXES = {"t1": "T1w", "t1c": "ce-gadolinium_T1w", "t2": "T2w", "flair": "FLAIR"}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Patient:
    """One simulated patient: table row, tumour, and the scan of the modalities that exist."""

    id: str
    subtype: str
    age: float | None
    sex: str
    lesion: Lesion
    scan: Scan


def write_hospitals(
    out: Path,
    *,
    sites: int,
    patients: int,
    external: int,
    seed: int,
    broken: int = 0,
    progress: Progress | None = None,
    force: bool = False,
    workers: int | None = None,
) -> None:
    """Write training hospitals `hospital-a`, `hospital-b`, ... and the folder `external` under `out`, all or nothing.

    With `broken`, also `broken/ghosts`, `broken/inverted`, ...: one level deeper, so that no run trains on them.

    Args:
        sites: training hospitals, 2 or more; the last has no labels.
        patients: in each training hospital, 1 or more.
        external: patients of the external hospital; 0 leaves its folder out.
        broken: patients of each fault of `simulation.phantom.broken`, otherwise like the external hospital's.
        progress: called with (patients done, patients in all).
        force: replace what stands at `out`.
        workers: processes; default 2 or the number of cores, whichever is smaller; 1 works in this process.

    Raises:
        ConfigError: numbers out of range, or `out` exists, is not empty, and `force` is off.
    """
    numbers = {
        "sites": (sites, 2),
        "patients": (patients, 1),
        "external": (external, 0),
        "seed": (seed, 0),
        "broken": (broken, 0),
    }
    _check(out, numbers, force)
    places = [(hospital(seed, number, labelled=number < sites - 1), patients) for number in range(sites)]
    places += [(hospital(seed, EXTERNAL, labelled=True), external)] if external else []
    places += [(site, broken) for site in broken_hospitals()] if broken else []
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        folder = Path(name) / out.name
        folder.mkdir()
        jobs = [(folder / site.folder, site, number) for site, count in places for number in range(count)]
        rows = _run(jobs, seed, workers or min(2, os.cpu_count() or 1), progress)
        for site, count in places:
            _write_site(folder / site.folder, site, [rows[site.name, number] for number in range(count)])
        if out.exists():
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        folder.rename(out)
        sync_folder(out.parent)


def simulate_patient(site: Hospital, number: int, seed: int) -> Patient:
    """Simulate patient `number` (from 0) of a site."""
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(site.number, number)))
    subtype = label_sequence(site, number + 1)[number]
    age = sample_age(generator, subtype)
    lesion = sample_lesion(generator, subtype)
    build = sample_build(generator, age)
    scanner = site.scanner
    axes = scanner.axes(SUBSLICES)
    mass = (np.array(lesion.centre, np.float32), lesion.size, lesion.mass_effect)
    head = grow_head(generator, axes, scanner.voxel[0], build, mass)
    growth = grow_lesion(generator, axes, head, lesion, scanner.field)
    modalities = site.draw_modalities(generator)
    scan = acquire(generator, scanner, head, growth, modalities)
    scan = replace(scan, images=break_images(scan.images, site.fault, generator)) if site.fault else scan
    known_age = age if generator.random() < 0.95 else None
    return Patient(f"sub-{number + 1:04d}", subtype, known_age, "MF"[int(generator.random() < 0.45)], lesion, scan)


def nifti_bytes(values: NDArray[np.integer], affine: NDArray[np.float64]) -> bytes:
    """A gzipped NIfTI-1 file without a time stamp, so that equal images give equal bytes."""
    image: Any = Nifti1Image(values, affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    content: bytes = image.to_bytes()
    return gzip.compress(content, compresslevel=4, mtime=0)


def _check(out: Path, numbers: dict[str, tuple[int, int]], force: bool) -> None:
    for name, (value, low) in numbers.items():
        if value < low:
            raise ConfigError(f"phantom hospitals: expected --{name} of {low} or more, got {value}.")
    if not force and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not empty. Name another folder, or say --force to replace it.")


Job = tuple[Path, Hospital, int]
Row = tuple[str, str, str, str]


def _run(jobs: list[Job], seed: int, workers: int, progress: Progress | None) -> dict[tuple[str, int], Row]:
    """Simulate and write all patients; rows of participants.tsv by (site, number)."""
    rows = {}
    for done, (job, row) in enumerate(_finished(jobs, functools.partial(_write_patient, seed=seed), workers), start=1):
        rows[job[1].name, job[2]] = row
        if progress:
            progress(done, len(jobs))
    return rows


def _finished(jobs: list[Job], work: Callable[[Job], Row], workers: int) -> Iterator[tuple[Job, Row]]:
    """Run the jobs, yield each as it ends; in this process where they are few."""
    if workers == 1 or len(jobs) <= 3:  # starting processes costs more than three patients
        yield from ((job, work(job)) for job in jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _write_patient(job: Job, seed: int) -> Row:
    """Simulate one patient, write its files, return its row: id, age, sex, subtype."""
    folder, site, number = job
    with threadpool_limits(1):  # the workers share the cores, and sums split over threads need not repeat to the byte
        patient = simulate_patient(site, number, seed)
    anat = folder / patient.id / "anat"
    anat.mkdir(parents=True)
    affine = site.scanner.affine
    for modality, image in patient.scan.images.items():
        content = nifti_bytes(np.rint(image).astype(np.int16), affine)
        (anat / f"{patient.id}_{SUFFIXES[modality]}.nii.gz").write_bytes(content)
    mask = nifti_bytes(patient.scan.mask.astype(np.int16), affine)
    (anat / f"{patient.id}_desc-tumour_mask.nii.gz").write_bytes(mask)
    age = "n/a" if patient.age is None else f"{patient.age:.0f}"
    return patient.id, age, patient.sex, patient.subtype if site.labelled else "n/a"


def _write_site(folder: Path, site: Hospital, rows: list[Row]) -> None:
    """Write the files that describe the whole site."""
    table = [("participant_id", "age", "sex", "subtype"), *rows]
    (folder / "participants.tsv").write_text("".join("\t".join(row) + "\n" for row in table), encoding="utf-8")
    (folder / "site.toml").write_text(
        f'name = "{site.name}"\n\n[policy]\nshare_counts = true\nshare_metrics = true\nshare_calibration = true\n'
        "share_pictures = true\nmin_patients = 1  # simulated patients have no secrets\n",
        encoding="utf-8",
    )
    described = {
        "Name": f"FedMRI phantom {site.name}: simulated, no real patient",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "License": "CC0",
        "GeneratedBy": [{"Name": "fedmri-sim phantom"}],
    }
    _write_json(folder / "dataset_description.json", described)
    for suffix, (tr, te) in (("T1w", site.scanner.t1w), ("T2w", site.scanner.t2w), ("FLAIR", site.scanner.flair)):
        times = {"MagneticFieldStrength": site.scanner.field, "RepetitionTime": tr / 1000, "EchoTime": te / 1000}
        extra = {"InversionTime": round(site.scanner.inversion_time) / 1000} if suffix == "FLAIR" else {}
        _write_json(folder / f"{suffix}.json", times | extra)  # BIDS inheritance: holds for all patients of the folder


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
