"""A patient's files become the network's input, and its answers a JSON file.

In a bundle this file is `scripts/patients.py`. It needs MONAI, torch, nibabel and scipy, and nothing of FedMRI but what stands
beside it: the same code reads, judges and cuts the files there as in training and in `fedmri-site predict`. A patient who cannot
be used is named, and keeps none of the others from an answer. S slices, M modalities, H x W pixels, C classes, Q covariates.
"""

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform  # type: ignore[attr-defined]

from common.config.axes import AXES, AXIAL, squares
from common.config.covariates import MISSING, Covariate
from common.config.standard import Standard
from common.data.gate.participants import match_rows, one_row
from common.data.gate.patient_files import find_files
from common.data.gate.tables import KEY, SESSION, read_table
from common.data.slices import slice_case
from common.errors import DataError

MASK = "mask"
Patient = dict[str, Any]


@dataclass(frozen=True)
class PatientFiles:
    """One patient's files, as the gate takes them."""

    id: str
    files: Mapping[str, Path]  # by modality
    mask: Path | None
    by_voxels: bool

    def name_of(self, file: Path) -> str:
        """A file's name in messages."""
        return file.name


@dataclass(frozen=True)
class Cutting:
    """How the network's training cut and scaled: modalities in its order, slices of an axis, pixels, millimetres, percentiles."""

    modalities: tuple[str, ...]
    slices: int
    size: int
    field_of_view: float | tuple[float, ...]
    low_percentile: float
    high_percentile: float
    standard: tuple[Standard, ...] = ()
    intensity: str = "percentiles"
    axes: tuple[str, ...] = AXIAL
    through: str = "tumour"
    shift: float = 0.0


def find_patients(
    folder: str, pattern: str, files: Mapping[str, str | Sequence[str]], listed: str = "", table: str = ""
) -> list[Patient]:
    """The patients of a folder, or of a JSON list: [{"id": ..., "t1": file, ..., "mask": file}], absent files left out.

    Args:
        folder: holds one folder a patient, or is one patient's.
        pattern: glob of the patients' folders.
        files: modality or "mask" -> glob, or several, inside a patient's folder.
        listed: path of a JSON list that stands in the folder's place; "": none.
        table: file in `folder` with columns `participant_id` and what the model takes besides images; it may be absent.
    """
    if listed:
        patients: list[Patient] = json.loads(Path(listed).read_text(encoding="utf-8"))
    else:
        root = Path(folder).absolute()
        folders = sorted(f for f in root.glob(pattern) if f.is_dir()) or [root]
        rows = _rows_of(root / table, [f.name for f in folders]) if table else {}
        patients = [_patient(f, files, rows.get(f.name, ())) for f in folders]
    known_of = [patient for patient in patients if "error" in patient or patient.keys() & (files.keys() - {MASK})]
    if not known_of:
        raise FileNotFoundError(f"{folder}: no image of anybody. Set dataset_dir, patients and files.")
    nothing = {"error": "no image. Set files, or leave the patient out."}
    return [patient if patient in known_of else {**patient, **nothing} for patient in patients]


def _rows_of(table: Path, patients: Sequence[str]) -> Mapping[str, Sequence[Mapping[str, str]]]:
    """Rows of a tab-separated table by patient."""
    return match_rows(read_table(table), patients).rows if table.is_file() else {}


def _patient(folder: Path, files: Mapping[str, str | Sequence[str]], rows: Sequence[Mapping[str, str]]) -> Patient:
    """Modality or mask -> the one file, and the cells of the table; or `error` -> what is wrong."""
    patterns = {key: (value,) if isinstance(value, str) else tuple(value) for key, value in files.items()}
    found = find_files(folder, {MASK: (), **patterns}, [key for key in files if key != MASK])
    if found.errors:
        return {"id": folder.name, "error": "; ".join(found.errors)}
    columns = sorted({name for row in rows for name in row} - {KEY, SESSION})
    cells, _, _ = one_row(rows, found.session, found.cells, columns)
    told = {name: cells[name] for name in columns if cells.get(name) and name not in files}
    return {**told, "id": folder.name, **{key: str(file) for key, file in found.files.items()}}


class SlicesOfPatientd(MapTransform):  # type: ignore[misc]
    """A patient's files become `images` [S, M, H, W] and `present` [M]; or `error` says why there is no answer.

    Args:
        keys: the modalities, in the network's order.
        slices, size, field_of_view, low, high: how the network's training cut and scaled (millimetres, percentiles). A list of
            fields of view: each slice is cut at each of them.
        covariates: what the network takes besides, in its order, as fields of `Covariate`; their words stand in the patient.
        place: "voxels" puts masks and images of the first modality's shape on its voxels, wherever their headers put them.
        standard: the intensity scale that volumes are mapped to, as fields of `Standard`.
        intensity: rule of what becomes 0 to 1, as `data.intensity` of the training.
        axes: along which slices lie, so many of each.
        through, shift: what slices go through, and how far windows are moved, as `data.through` and `data.shift` of the training.
    """

    def __init__(
        self,
        keys: Sequence[str],
        slices: int,
        size: int,
        field_of_view: float | Sequence[float],
        low: float,
        high: float,
        covariates: Sequence[Mapping[str, Any]] = (),
        place: str = "header",
        standard: Sequence[Mapping[str, Any]] = (),
        intensity: str = "percentiles",
        axes: Sequence[str] = AXIAL,
        through: str = "tumour",
        shift: float = 0.0,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        if place not in ("header", "voxels"):
            raise ValueError(f'place: expected "header" or "voxels", got {place!r}.')
        scale = tuple(Standard(row["name"], tuple(row["landmarks"])) for row in standard)
        if unknown := [axis for axis in axes if axis not in AXES]:
            raise ValueError(f"axes: expected some of {', '.join(AXES)}; got {unknown[0]!r}.")
        field = tuple(field_of_view) if isinstance(field_of_view, Sequence) else field_of_view
        self.cutting = Cutting(tuple(keys), slices, size, field, low, high, scale, intensity, tuple(axes), through, shift)
        self.by_voxels = place == "voxels"
        fields = [{key: _frozen(value) for key, value in row.items()} for row in covariates]
        self.covariates = [Covariate(**row) for row in fields]

    def __call__(self, data: Patient) -> Patient:
        """Read the files that `data` names; a patient with an error comes back with it."""
        if "error" in data:
            return {"id": data["id"], "error": data["error"]}
        try:
            return self._cut(data)
        except DataError as error:
            return {"id": data["id"], "error": str(error)}

    def _cut(self, data: Patient) -> Patient:
        files = {key: Path(data[key]) for key in self.keys if key in data}
        patient = PatientFiles(str(data["id"]), files, Path(data[MASK]) if MASK in data else None, self.by_voxels)
        known = [_value(row, data) for row in self.covariates]
        sliced = slice_case(patient, self.cutting)
        told = {"covariates": torch.tensor(known, dtype=torch.float32)} if known else {}
        return {
            "id": data["id"],
            "images": torch.from_numpy(sliced.images.astype(np.float32)),
            "present": torch.from_numpy(sliced.present),
            "slices": [int(index) for index in sliced.indices],
            "axes": [square.axis for square in squares(self.cutting)],
            "fields_of_view": [square.field_of_view for square in squares(self.cutting)],
            "findings": [asdict(finding) for finding in sliced.findings],
            **told,
        }


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _value(row: Covariate, patient: Patient) -> float:
    """What the patient's word for a covariate means to the network; NaN where there is none."""
    word = str(patient.get(row.name, MISSING)).strip()
    value = math.nan if word.lower() in ("", MISSING, "na", "nan") else row.read(word)
    if value is None:
        raise DataError(f"{patient['id']}: {row.name} {word!r} is not {row.expected}. Correct it, or write n/a.")
    return value


class Evaluator:
    """Runs the network on each patient and writes its predictions.

    Args:
        network: images [1, S, M, H, W], present [1, M] and, where it takes them, covariates [1, Q] to probabilities [1, C].
        dataset: of what `SlicesOfPatientd` gives.
        classes, modalities: names, in the network's order.
        output: a file that ends in .json or .csv.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        dataset: Sequence[Patient],
        inferer: Any,
        device: torch.device,
        classes: Sequence[str],
        modalities: Sequence[str],
        output: str,
    ) -> None:
        self.network, self.dataset, self.inferer, self.device = network, dataset, inferer, device
        self.classes, self.modalities, self.output = classes, modalities, Path(output)
        if self.output.suffix not in (".json", ".csv"):
            raise ValueError(f"output: expected a file that ends in .json or .csv, got {output}.")

    def run(self) -> None:
        """All patients, one after the other; the command fails where nobody gets an answer."""
        rows = [self._ask(self.dataset[index]) for index in range(len(self.dataset))]
        self.output.parent.mkdir(parents=True, exist_ok=True)
        if self.output.suffix == ".json":
            self.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        else:
            self._write_table(rows)
        broken = [row for row in rows if "error" in row]
        for row in broken:
            print(f"No answer for {row['id']}: {row['error']}", file=sys.stderr)
        print(f"{len(rows) - len(broken)} of {len(rows)} patients: {self.output}")
        if len(broken) == len(rows):
            raise SystemExit(1)

    @torch.inference_mode()
    def _ask(self, patient: Patient) -> Patient:
        if "error" in patient:
            return {"id": patient["id"], "error": patient["error"], "probabilities": None, "modalities": [], "slices": []}
        keys = [key for key in ("images", "present", "covariates") if key in patient]
        images, *others = (patient[key].unsqueeze(0).to(self.device) for key in keys)
        answer = self.inferer(images, self.network, *others)[0].double().cpu().tolist()
        used = [name for name, here in zip(self.modalities, patient["present"].tolist(), strict=True) if here]
        return {
            "id": patient["id"],
            "probabilities": dict(zip(self.classes, answer, strict=True)),
            "modalities": used,
            **{key: patient[key] for key in ("slices", "axes", "fields_of_view")},
            "findings": patient["findings"],
        }

    def _write_table(self, rows: Sequence[Patient]) -> None:
        with self.output.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["id", *self.classes, "modalities", "error"])
            for row in rows:
                found = [(row["probabilities"] or {}).get(name, "") for name in self.classes]
                table.writerow([row["id"], *found, "+".join(row["modalities"]), row.get("error", "")])
