"""Patients measured by what is drawn, with networks that know or do not: files in, report out."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.nifti1 import Nifti1Image

from common.config.run import RunConfig, config_from_table
from common.data.cases import Case
from common.evaluation.segmentation import beside, external_entry, measure_patients, proposed, subset_entries
from tests.common.config.test_segmentation import TABLE

CONFIG: RunConfig = config_from_table(
    {**TABLE, "data": {"through": "brain", "shift": 5.0, "modalities": ["t1", "flair"], "size": 32, "field_of_view": 48.0}}
    | {"evaluation": {"every": 0, "bootstrap": 50}}
)


def bright(images: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Knows that tumour is bright on FLAIR, and nothing without it."""
    return 40 * (images[:, 1] - 0.75) * present[:, 1].view(-1, 1, 1) - 40.0 * ~present[:, 1].view(-1, 1, 1)


@pytest.fixture
def cases(tmp_path: Path) -> list[tuple[str, Case]]:
    """Four heads of 1.5 mm and 4 mm slices, stored otherwise than RAS; the last has no mask, the third no FLAIR."""
    found = []
    for number in range(4):
        x, y, z = np.meshgrid(np.arange(50) - 25, np.arange(44) - 22, np.arange(9) - 4, indexing="ij")
        head = (x / 22) ** 2 + (y / 18) ** 2 + (z / 5) ** 2 < 1
        tumour = ((x - 6 + 4 * number) / 6) ** 2 + ((y + 4) / 5) ** 2 + (z / 2) ** 2 < 1
        noise = np.random.default_rng(number).normal(0, 8, x.shape)
        images = {"t1": (200 + noise) * head, "flair": (200 + noise) * head + 300 * tumour}
        folder = tmp_path / f"sub-{number}"
        folder.mkdir()
        for name, values in {**images, "mask": tumour}.items():
            affine = np.diag([-1.5, -1.5, 4.0, 1.0])
            nib.save(Nifti1Image(values.astype(np.float32), affine), folder / f"{name}.nii")  # type: ignore[attr-defined]
        files = {name: folder / f"{name}.nii" for name in images if not (number == 2 and name == "flair")}
        found.append((f"sub-{number}", Case(f"sub-{number}", files, folder / "mask.nii", 0, None, None, folder)))
    return [*found[:3], ("sub-3", replace(found[3][1], mask=None))]


def test_who_is_found_is_found_on_all_slices(cases: list[tuple[str, Case]]) -> None:
    measured = measure_patients(bright, cases, CONFIG, subsets=True)
    assert [one["id"] for one in measured.patients] == ["sub-0", "sub-1", "sub-2", "sub-3"]
    assert [one["modalities"] for one in measured.patients] == [["t1", "flair"]] * 2 + [["t1"], ["t1", "flair"]]
    dice = {name: one["dice"] for name, one in measured.known.items()}
    assert dice.keys() == {"sub-0", "sub-1", "sub-2"}
    assert min(dice["sub-0"], dice["sub-1"]) > 0.85
    assert measured.known["sub-2"]["hd95_mm"] is None
    drawn = measured.known["sub-0"]["drawn_ml"]
    assert drawn == pytest.approx(4 / 3 * np.pi * 9 * 7.5 * 8 / 1000, rel=0.15)  # an ellipsoid
    entry = external_entry(measured, CONFIG)
    assert (entry["n"], entry["empty"], entry["undrawn"]) == (3, 1, 1)
    assert entry["dice"]["value"] == pytest.approx(np.mean(list(dice.values())))
    assert any("conformal" in sentence for sentence in entry["left_out"])
    told = subset_entries(measured, CONFIG)
    assert list(told) == ["t1", "flair", "t1+flair"]
    assert told["t1"]["segmentation"]["dice"]["value"] == 0
    assert told["t1"]["drop"]["value"] == pytest.approx(np.mean(list(dice.values())))
    assert (told["flair"]["segmentation"]["n"], told["flair"]["drop"]["value"]) == (2, pytest.approx(0, abs=1e-6))
    assert told["t1+flair"]["drop"]["value"] == 0


def test_models_are_compared_on_the_patients_that_both_have() -> None:
    first = {f"p{n}": {"dice": 0.8, "jaccard": 0.7, "hd95_mm": 2.0} for n in range(4)}
    other = {f"p{n}": {"dice": 0.5 + 0.1 * n, "jaccard": 0.3, "hd95_mm": None} for n in range(1, 6)}
    told = beside(first, other, CONFIG, "difference")
    assert told["segmentation"]["n"] == 3
    assert told["difference"]["value"] == pytest.approx(0.8 - 0.7)
    assert told["segmentation"]["hd95_mm"]["value"] is None


def test_of_several_parts_the_largest_are_kept() -> None:
    probabilities = np.zeros((8, 8, 4), np.float32)
    probabilities[0, 0, 0] = 0.9
    probabilities[1, 1, 1] = 0.9  # touches the first by a corner: another part
    probabilities[4:7, 4:7, 1] = 0.6
    probabilities[4, 0:2, 3] = 0.7
    for components, voxels in ((0, 13), (1, 9), (2, 11), (3, 12), (9, 13)):
        task = {**TABLE, "task": {"name": "segmentation", "components": components}}
        assert proposed(probabilities, config_from_table(task)).sum() == voxels
    assert not proposed(
        probabilities * 0.5, config_from_table({**TABLE, "task": {"name": "segmentation", "components": 1}})
    ).any()
