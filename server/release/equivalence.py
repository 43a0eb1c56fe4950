"""Compares every exported file with the trained model, on the same patients, before a release is finished.

N patients, M modalities, C classes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.config.modalities import MODALITIES
from common.config.sections import DataConfig
from common.data.cases import Case, Site, read_site
from common.data.covariates import as_array
from common.data.dataset import SiteData
from common.data.gate.finding import StaysOutError
from common.data.slices import slice_case
from common.errors import FedMRIError
from common.model_files.open import open_saved, read_saved
from common.model_files.opened_model import OpenedModel
from common.training.predict import predict

TOLERANCE = 1e-4  # of a probability
PATIENTS = 6  # of a site that are looked at
MONAI_SECONDS = 900.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """One file that agrees with the trained model."""

    file: str
    patients: int
    difference: float  # the largest of a probability
    source: str  # who the patients are


def check_files(folder: Path, trained: OpenedModel, site: Path | None) -> list[dict[str, str | int | float]]:
    """Compare model.safetensors, model.onnx and the bundle, run by MONAI itself, with the trained model.

    Args:
        folder: of the release.
        trained: the model that was exported.
        site: a folder of patients; None: seeded noise takes their place, written as NIfTI.

    Raises:
        FedMRIError: one differs by more than `TOLERANCE`, or does not run; names file and patient.
    """
    with tempfile.TemporaryDirectory(prefix="fedmri-check-") as scratch:
        place = site or made_up_site(Path(scratch) / "noise", trained.config.data)
        cases, patients = _patients(_some(read_site(place, trained.config, simulated=True).usable()), trained.config.data)
        expected = _probabilities(trained, patients)
        found = {
            "model.safetensors": _probabilities(open_saved(read_saved(folder / "model.safetensors")), patients),
            "model.onnx": _onnx(folder / "model.onnx", patients),
            "bundle": _bundle(folder / "bundle", cases, trained, Path(scratch)),
        }
    source = "patients of a site" if site else "seeded noise"
    return [asdict(Check(name, len(cases), _compare(name, patients, expected, p), source)) for name, p in found.items()]


def _compare(name: str, patients: SiteData, expected: Floats, found: Floats) -> float:
    """The largest difference."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise FedMRIError(f"Export, {name}: expected {expected.shape} probabilities, got {found.shape}. Nothing was written.")
    differences = np.abs(found - expected).max(1)
    worst = int(differences.argmax())
    if differences[worst] > TOLERANCE:
        raise FedMRIError(
            f"Export, {name}: patient {patients.ids[worst]}: a probability differs by {differences[worst]:.1e} from the trained "
            f"model's, more than {TOLERANCE:g}. Nothing was written; run with other versions of torch and onnx, or report it."
        )
    return float(differences[worst])


def _some(site: Site) -> Sequence[Case]:
    """A few patients, from all over the list."""
    rows = np.unique(np.linspace(0, len(site.cases) - 1, PATIENTS).round().astype(int))
    return [site.cases[row] for row in rows]


def _patients(asked: Sequence[Case], data: DataConfig) -> tuple[Sequence[Case], SiteData]:
    """Those who can be used, as cases and as slices.

    Raises:
        FedMRIError: nobody can be used.
    """
    cases, sliced, out = [], [], []
    for case in asked:
        try:
            sliced.append(slice_case(case, data))
            cases.append(case)
        except StaysOutError as error:
            out.append(str(error))
    if not cases:
        raise FedMRIError(f"Export, --check: no patient can be used. {' '.join(out)} Nothing was written.")
    labels = np.full(len(cases), -1, np.int64)
    images, present = np.stack([s.images for s in sliced]), np.stack([s.present for s in sliced])
    covariates = as_array([case.covariates for case in cases], data.covariates)
    return cases, SiteData("check", tuple(case.id for case in cases), images, present, labels, "check", covariates)


def _probabilities(opened: OpenedModel, patients: SiteData) -> Floats:
    """[N, C] in full precision, calibrated."""
    config = replace(opened.config, training=replace(opened.config.training, precision="fp32"))
    return opened.scaling.apply(predict(replace(opened, config=config), patients))


def _onnx(path: Path, patients: SiteData) -> Floats:
    """By onnxruntime: all patients but the last in one batch, the last alone."""
    import onnxruntime  # noqa: PLC0415  (of the extra `export`)

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names, parts, images = [given.name for given in session.get_inputs()], [], np.asarray(patients.images)
    for rows in (slice(0, -1), slice(-1, None)):
        given = (images[rows].astype(np.float32), patients.present[rows], patients.covariates[rows])
        if len(given[0]):
            parts.append(session.run(None, dict(zip(names, given, strict=False)))[0])  # without covariates it has two inputs
    return np.concatenate(parts).astype(np.float64)


def _bundle(bundle: Path, cases: Sequence[Case], trained: OpenedModel, scratch: Path) -> Floats:
    """By `python -m monai.bundle run`, from the patients' files, in a process and a folder of its own."""
    rows = trained.config.data.covariates
    listed = [
        {"id": case.id}
        | {kind: str(file.resolve()) for kind, file in case.sources()}
        | {row.name: row.show(value) for row, value in zip(rows, case.covariates, strict=True)}
        for case in cases
    ]
    (scratch / "list.json").write_text(json.dumps(listed), encoding="utf-8")
    output, config = scratch / "predictions.json", bundle.resolve() / "configs" / "inference.json"
    command = [sys.executable, "-B", "-m", "monai.bundle", "run", "--config_file", str(config)]
    command += ["--datalist", str(scratch / "list.json"), "--output", str(output)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=MONAI_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FedMRIError(f"Export, bundle: MONAI did not end within {MONAI_SECONDS:g} s. Nothing was written.") from error
    if done.returncode or not output.is_file():
        last = " ".join(done.stderr.strip().splitlines()[-1:])[:300]
        raise FedMRIError(f"Export, bundle: MONAI ended with code {done.returncode} ({last}). Nothing was written.")
    rows = json.loads(output.read_text(encoding="utf-8"))
    return np.array([[row["probabilities"][name] for name in trained.config.task.classes] for row in rows])


def made_up_site(folder: Path, data: DataConfig) -> Path:
    """Patients of smooth seeded noise: all modalities and one, with a mask and without, in several orientations and grids."""
    rng = np.random.default_rng(0)
    shape = (48, 56, 14)
    affines = [np.diag([3.0, 3.0, 5.0, 1.0]), np.diag([-3.0, -3.0, 6.0, 1.0]), np.diag([3.0, -3.0, 5.0, 1.0])]
    for number, affine in enumerate(affines):
        names = data.modalities if number != 1 else data.modalities[-1:]
        anat = folder / f"sub-noise{number + 1}" / "anat"
        anat.mkdir(parents=True)
        for m, name in enumerate(names):
            shifted = affine.copy()
            shifted[:3, 3] = (-70, -80, -30 + m) if number == 2 else (-70, -80, -30)  # off the first one's grid
            _write(anat / f"{anat.parent.name}_{MODALITIES[name].suffix}.nii.gz", _noise(rng, shape), shifted)
        if number == 0:
            _write_table(folder, data)
            mask = np.zeros(shape, np.float32)
            mask[20:30, 25:35, 4:9] = 1
            _write(anat / f"{anat.parent.name}_desc-tumour_mask.nii.gz", mask, np.array(affine) + _corner())
    return folder


def _write_table(folder: Path, data: DataConfig) -> None:
    """What is known of the first two patients where the run has covariates; of the third nothing is."""
    if data.covariates:
        names = [row.name for row in data.covariates]
        lines = [["participant_id", *names]]
        for number in (1, 2):
            lines.append([f"sub-noise{number}", *(row.show(number % 2 if row.values else row.centre) for row in data.covariates)])
        (folder / "participants.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A bright ellipsoid with texture, in air."""
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), 2.0)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.8
    return np.asarray(inside * (200 + 800 * texture), np.float32)


def _corner() -> NDArray[np.float64]:
    """The origin of the first patient's grid."""
    origin = np.zeros((4, 4))
    origin[:3, 3] = (-70, -80, -30)
    return origin


def _write(path: Path, voxels: NDArray[np.float32], affine: NDArray[np.float64]) -> None:
    nib.save(nib.Nifti1Image(voxels, affine), path)
