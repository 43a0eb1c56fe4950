"""Phantom hospitals: BIDS folders of simulated patients that differ between sites as real ones do.

Same seed, same bytes. A patient depends on the seed, the site and its own number, not on how many others there are; only
which site has no labels (the last training site) follows from the number of sites. What is written on request (further
modalities, the grade, findings) draws from generators of its own, so that everything else stays what it is without.
"""

import functools
import gzip
import multiprocessing
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from common.config.modalities import MODALITIES
from common.data.bids import describe_site, mask_path, write_json
from common.errors import ConfigError
from common.files import sync_folder
from simulation.phantom.anatomy import grow_head, sample_build
from simulation.phantom.broken import break_images
from simulation.phantom.diffusion import acquire_adc
from simulation.phantom.findings import FINDINGS, sample_findings
from simulation.phantom.grade import sample_grade
from simulation.phantom.lesion import Lesion, grow_lesion, sample_age, sample_lesion
from simulation.phantom.scanner import ECHO_PLANAR, SUBSLICES, Scan, acquire
from simulation.phantom.sites import EXTERNAL, Hospital, broken_hospitals, hospital, label_sequence

ON_REQUEST = {"adc": acquire_adc}  # modalities beyond the default four, and what makes their images
LAYOUTS = ("bids", "flat")  # masks under derivatives/, as the BIDS validator wants them; masks beside the images, as once
MISSING = 0.05  # chance that a patient lacks one of these, where the site does not say it
ABOUT = (
    "Simulated patients: anatomy, tumour and scanner are computed, and no real patient is behind any of them. They verify "
    "software and claim nothing clinical. Made by `fedmri-sim phantom`; equal seeds give equal files. Images lie under "
    "`sub-*/anat`, the tumour's masks under `derivatives/tumour`, what is known of the patients in `participants.tsv`."
)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Patient:
    """One simulated patient: table row, tumour, and the scan of the modalities that exist."""

    id: str
    subtype: str
    grade: str
    findings: tuple[str, ...]
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
    also: tuple[str, ...] = (),
    grade: bool = False,
    findings: bool = False,
    layout: str = "bids",
    progress: Progress | None = None,
    force: bool = False,
    workers: int | None = None,
) -> None:
    """Write training hospitals `hospital-a`, `hospital-b`, ... and the folder `external` under `out`, all or nothing.

    With `broken`, also `broken/ghosts`, `broken/inverted`, ...: one level deeper, so that no run trains on them.

    Args:
        out: folder; must be absent or empty unless `force`.
        sites: training hospitals, 2 or more; the last has no labels.
        patients: in each training hospital, 1 or more.
        external: patients of the external hospital; 0 leaves its folder out.
        seed: equal ones give equal files.
        broken: patients of each fault of `simulation.phantom.broken`, otherwise like the external hospital's.
        also: of `ON_REQUEST`: modalities that are written besides.
        grade: whether participants.tsv has the column `grade`.
        findings: whether it has those of `simulation.phantom.findings`.
        layout: one of `LAYOUTS`; images and masks are the same in both, to the byte.
        progress: called with (patients done, patients in all).
        force: replace what stands at `out`.
        workers: processes; default 2 or the number of cores, whichever is smaller; 1 works in this process.

    Raises:
        ConfigError: numbers out of range, no such modality or layout, or `out` exists, is not empty, and `force` is off.
    """
    numbers = {
        "sites": (sites, 2),
        "patients": (patients, 1),
        "external": (external, 0),
        "seed": (seed, 0),
        "broken": (broken, 0),
    }
    _check(out, numbers, force)
    if unknown := sorted(set(also) - set(ON_REQUEST)):
        raise ConfigError(f"phantom hospitals: expected --also some of {', '.join(ON_REQUEST)}, got {', '.join(unknown)}.")
    if layout not in LAYOUTS:
        raise ConfigError(f"phantom hospitals: expected --layout one of {', '.join(LAYOUTS)}, got {layout}.")
    places = [(hospital(seed, number, labelled=number < sites - 1), patients) for number in range(sites)]
    places += [(hospital(seed, EXTERNAL, labelled=True), external)] if external else []
    places += [(site, broken) for site in broken_hospitals()] if broken else []
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        folder = Path(name) / out.name
        folder.mkdir()
        jobs = [(folder / site.folder, site, number) for site, count in places for number in range(count)]
        columns = (*(("grade",) if grade else ()), *(FINDINGS if findings else ()))
        work = functools.partial(_write_patient, seed=seed, also=also, columns=columns, layout=layout)
        rows = _run(jobs, work, workers or min(2, os.cpu_count() or 1), progress)
        for site, count in places:
            _write_site(folder / site.folder, site, [rows[site.name, number] for number in range(count)], also, columns, layout)
        if out.exists():
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        folder.rename(out)
        sync_folder(out.parent)


def simulate_patient(site: Hospital, number: int, seed: int, also: tuple[str, ...] = ()) -> Patient:
    """Simulate patient `number` (from 0) of a site, with the modalities of `also` besides."""
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
    for name in also:
        own = _generator_of(name, site, number, seed)
        if own.random() >= site.missing.get(name, MISSING):
            scan = replace(scan, images={**scan.images, name: ON_REQUEST[name](own, scanner, head, growth)})
    known_age = age if generator.random() < 0.95 else None
    grade = sample_grade(_generator_of("grade", site, number, seed), lesion)
    found = sample_findings(_generator_of("findings", site, number, seed), lesion)
    sex = "MF"[int(generator.random() < 0.45)]
    return Patient(f"sub-{number + 1:04d}", subtype, grade, found, known_age, sex, lesion, scan)


def _generator_of(name: str, site: Hospital, number: int, seed: int) -> np.random.Generator:
    """A patient's own generator for one thing, apart from that of all that is always written."""
    key = (site.number, number, zlib.crc32(name.encode()))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def nifti_bytes(values: NDArray[np.integer], affine: NDArray[np.float64]) -> bytes:
    """A gzipped NIfTI-1 file without a time stamp, so that equal images give equal bytes."""
    image: Any = Nifti1Image(values, affine)
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
Row = tuple[str, ...]


def _run(jobs: list[Job], work: Callable[[Job], Row], workers: int, progress: Progress | None) -> dict[tuple[str, int], Row]:
    """Simulate and write all patients; rows of participants.tsv by (site, number)."""
    rows = {}
    for done, (job, row) in enumerate(_finished(jobs, work, workers), start=1):
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


def _write_patient(job: Job, seed: int, also: tuple[str, ...], columns: tuple[str, ...], layout: str) -> Row:
    """Simulate one patient, write its files, return its row: id, age, sex, subtype, and `columns`, which are on request."""
    folder, site, number = job
    with threadpool_limits(1):  # the workers share the cores, and sums split over threads need not repeat to the byte
        patient = simulate_patient(site, number, seed, also)
    (folder / patient.id / "anat").mkdir(parents=True)
    affine = site.scanner.affine
    for modality, image in patient.scan.images.items():
        content = nifti_bytes(np.rint(image).astype(np.int16), affine)
        file = image_path(folder, patient.id, modality)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    mask = nifti_bytes(patient.scan.mask.astype(np.int16), affine)
    file = mask_of(folder, patient.id, layout)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(mask)
    age = "n/a" if patient.age is None else f"{patient.age:.0f}"
    known = {"grade": patient.grade, **dict(zip(FINDINGS, patient.findings, strict=True))}
    labels = (patient.subtype, *(known[column] for column in columns))
    return patient.id, age, patient.sex, *(label if site.labelled else "n/a" for label in labels)


def image_path(site: Path, patient: str, modality: str) -> Path:
    """Where a patient's image lies, under the site's folder."""
    row = MODALITIES[modality]
    return site / patient / row.folders[0] / f"{patient}_{row.suffix}.nii.gz"


def mask_of(site: Path, patient: str, layout: str = "bids") -> Path:
    """Where a patient's mask lies, under the site's folder."""
    return mask_path(site, patient) if layout == "bids" else site / patient / "anat" / f"{patient}_desc-tumour_mask.nii.gz"


def _write_site(
    folder: Path, site: Hospital, rows: list[Row], also: tuple[str, ...], columns: tuple[str, ...], layout: str
) -> None:
    """Write the files that describe the whole site."""
    table = [("participant_id", "age", "sex", "subtype", *columns), *rows]
    (folder / "participants.tsv").write_text("".join("\t".join(row) + "\n" for row in table), encoding="utf-8")
    labels = "" if site.labelled else '[labels]\ncolumn = "none"  # this hospital has no labels, and that is meant\n\n'
    (folder / "site.toml").write_text(
        f'name = "{site.name}"\n\n{labels}[policy]\nshare_counts = true\nshare_metrics = true\nshare_calibration = true\n'
        'share_pictures = true\nsurvey = ["*"]\nmin_patients = 1  # simulated patients have no secrets\n',
        encoding="utf-8",
    )
    name, made_by = f"FedMRI phantom {site.name}: simulated, no real patient", "fedmri-sim phantom"
    if layout == "bids":
        describe_site(folder, name, made_by, ABOUT, table[0], {"License": "CC0", "Authors": ["FedMRI"]})
    else:
        described = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0"}
        write_json(folder / "dataset_description.json", described | {"GeneratedBy": [{"Name": made_by}]})
    for suffix, (tr, te) in (("T1w", site.scanner.t1w), ("T2w", site.scanner.t2w), ("FLAIR", site.scanner.flair)):
        if layout == "bids" and not any(folder.glob(f"sub-*/anat/*_{suffix}.nii.gz")):
            continue  # a sidecar of nothing is an error of BIDS
        times = {"MagneticFieldStrength": site.scanner.field, "RepetitionTime": tr / 1000, "EchoTime": te / 1000}
        extra = {"InversionTime": round(site.scanner.inversion_time) / 1000} if suffix == "FLAIR" else {}
        write_json(folder / f"{suffix}.json", times | extra)  # BIDS inheritance: holds for all patients of the folder
    if "adc" in also:
        tr, te = ECHO_PLANAR
        times = {"MagneticFieldStrength": site.scanner.field, "RepetitionTime": tr / 1000, "EchoTime": te / 1000}
        write_json(folder / "ADC.json", times | {"Units": "um^2/s"})
