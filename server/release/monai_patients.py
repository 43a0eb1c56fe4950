"""A patient's NIfTI files become the network's input, and its answers a JSON file.

In a bundle this file is `scripts/patients.py`. It needs MONAI, torch, nibabel and scipy, and nothing of FedMRI but what stands
beside it. S slices, M modalities, H x W pixels, C classes, Q clinical covariates.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform  # type: ignore[attr-defined]

from common.config.covariates import MISSING, Covariate
from common.data.volumes import (
    Volume,
    apply_window,
    centre_of,
    choose_slices,
    crop_slices,
    foreground,
    intensity_window,
    quantity_window,
    resample,
)

MASK = "mask"
Patient = dict[str, Any]
Unlike = Mapping[str, Sequence[str]]


def find_patients(
    folder: str,
    pattern: str,
    files: Mapping[str, str | Sequence[str]],
    listed: str = "",
    unlike: Unlike | None = None,
    table: str = "",
) -> list[Patient]:
    """The patients of a folder, or of a JSON list: [{"id": ..., "t1": file, ..., "mask": file}], absent files left out.

    Args:
        folder: holds one folder a patient, or is one patient's.
        pattern: glob of the patients' folders.
        files: modality or "mask" -> glob, or several, inside a patient's folder.
        listed: path of a JSON list that stands in the folder's place; "": none.
        unlike: modality -> those whose files are never taken for it, though its globs match them.
        table: file in `folder` with columns `participant_id` and what the model takes besides images; it may be absent.
    """
    if listed:
        patients: list[Patient] = json.loads(Path(listed).read_text(encoding="utf-8"))
    else:
        root = Path(folder)
        folders = sorted(f for f in root.glob(pattern) if f.is_dir()) or [root]
        known = _rows_of(root / table, files) if table else {}
        own = [{"id": f.resolve().name} | _files_of(f, files, unlike or {}) for f in folders]
        patients = [known.get(patient["id"], {}) | patient for patient in own]
    empty = [patient["id"] for patient in patients if not patient.keys() & (files.keys() - {MASK})]
    if empty or not patients:
        raise FileNotFoundError(f"{folder}: no image of {', '.join(empty) or 'anybody'}. Set dataset_dir, patients and files.")
    return patients


def _rows_of(table: Path, files: Mapping[str, Any]) -> dict[str, Patient]:
    """Cells of a tab-separated table by participant and column, but for columns that have the name of a file."""
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8-sig", newline="") as text:
        rows = list(csv.DictReader(text, delimiter="\t", quoting=csv.QUOTE_NONE))
    return {row["participant_id"]: {key: cell for key, cell in row.items() if key and cell and key not in files} for row in rows}


def _files_of(folder: Path, files: Mapping[str, str | Sequence[str]], unlike: Unlike) -> dict[str, str]:
    """Modality or mask -> the one file that matches."""
    patterns = {key: [value] if isinstance(value, str) else value for key, value in files.items()}
    found = {key: {f for p in globs for f in folder.glob(p) if f.is_file()} for key, globs in patterns.items()}
    for key, others in unlike.items():
        for other in others:
            found[key] -= found.get(other, set())
    several = [f"{key} ({len(matches)} files)" for key, matches in found.items() if len(matches) > 1]
    if several:
        raise ValueError(f"{folder.name}: more than one file for {', '.join(several)}. Narrow the globs in files.")
    return {key: str(min(matches)) for key, matches in found.items() if matches}


class SlicesOfPatientd(MapTransform):  # type: ignore[misc]
    """Loaded volumes in RAS orientation become `images` [S, M, H, W] and `present` [M].

    Args:
        keys: the modalities, in the network's order.
        slices, size, field_of_view, low, high: how the network's training cut and scaled (millimetres, percentiles).
        quantities: keys that have a fixed window instead: low, high, and what is typical of a brain.
        covariates: what the network takes besides, in its order, as fields of `Covariate`; their words stand in the patient.
    """

    def __init__(
        self,
        keys: Sequence[str],
        slices: int,
        size: int,
        field_of_view: float,
        low: float,
        high: float,
        quantities: Mapping[str, Sequence[float]],
        covariates: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.settings, self.percentiles, self.quantities = (slices, size, field_of_view), (low, high), quantities
        fields = [{key: _frozen(value) for key, value in row.items()} for row in covariates]
        self.covariates = [Covariate(**row) for row in fields]

    def __call__(self, data: Patient) -> Patient:
        """Read the volumes out of `data`; a patient has at least one modality."""
        slices, size, field_of_view = self.settings
        volumes = {key: _volume(data[key], key) for key in self.keys if key in data}
        reference = next(iter(volumes.values()))
        mask = resample(_volume(data[MASK], MASK), reference, order=0).voxels > 0 if MASK in data else None
        tumour = mask is not None and bool(mask.any())
        region = mask if mask is not None and tumour else foreground(reference.voxels)
        indices = choose_slices(region, slices, tumour=tumour, thickness=reference.spacing[2])
        centre = centre_of(region, reference.spacing)
        images = np.zeros((slices, len(self.keys), size, size), np.float16)  # half precision, as in training
        for m, key in enumerate(self.keys):
            if key in volumes:
                volume = resample(volumes[key], reference)
                scaled = Volume(apply_window(volume.voxels, self._window(key, volume)), volume.affine)
                images[:, m] = crop_slices(scaled, indices, centre, field_of_view, size)
        present = torch.tensor([key in volumes for key in self.keys])
        chosen = [int(index) for index in indices]
        pixels, known = torch.from_numpy(images.astype(np.float32)), [_value(row, data) for row in self.covariates]
        told = {"covariates": torch.tensor(known, dtype=torch.float32)} if known else {}
        return {"id": data["id"], "images": pixels, "present": present, "slices": chosen} | told

    def _window(self, key: str, volume: Volume) -> tuple[float, float] | None:
        if key in self.quantities:
            return quantity_window(volume.voxels, *self.quantities[key])
        return intensity_window(volume.voxels, *self.percentiles)


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _value(row: Covariate, patient: Patient) -> float:
    """What the patient's word for a covariate means to the network; NaN where there is none."""
    word = str(patient.get(row.name, MISSING)).strip()
    value = math.nan if word.lower() in ("", MISSING, "na", "nan") else row.read(word)
    if value is None:
        raise ValueError(f"{patient['id']}: {row.name} {word!r} is not {row.expected}. Correct it, or write n/a.")
    return value


def _volume(image: Any, name: str) -> Volume:
    """MONAI's [1, X, Y, Z] with its affine."""
    voxels = np.asarray(image, dtype=np.float32)
    if voxels.ndim != 4 or voxels.shape[0] != 1:
        raise ValueError(
            f"{name}: expected one volume with three axes, got shape {voxels.shape[1:]} in {voxels.shape[0]} frames."
        )
    return Volume(np.ascontiguousarray(voxels[0]), np.asarray(image.affine, dtype=np.float64))


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
        """All patients, one after the other."""
        rows = [self._ask(self.dataset[index]) for index in range(len(self.dataset))]
        self.output.parent.mkdir(parents=True, exist_ok=True)
        if self.output.suffix == ".json":
            self.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        else:
            self._write_table(rows)
        print(f"{len(rows)} patients: {self.output}")

    @torch.inference_mode()
    def _ask(self, patient: Patient) -> Patient:
        keys = [key for key in ("images", "present", "covariates") if key in patient]
        images, *others = (patient[key].unsqueeze(0).to(self.device) for key in keys)
        answer = self.inferer(images, self.network, *others)[0].double().cpu().tolist()
        used = [name for name, here in zip(self.modalities, patient["present"].tolist(), strict=True) if here]
        probabilities = dict(zip(self.classes, answer, strict=True))
        return {"id": patient["id"], "probabilities": probabilities, "modalities": used, "slices": patient["slices"]}

    def _write_table(self, rows: Sequence[Patient]) -> None:
        with self.output.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["id", *self.classes, "modalities"])
            for row in rows:
                table.writerow([row["id"], *row["probabilities"].values(), "+".join(row["modalities"])])
