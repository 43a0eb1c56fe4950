"""Folders in which a patient lies twice, under another name and as another file."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.data.cases import read_site
from common.data.gate.finding import stay_out
from common.errors import DataError
from server.report.publish import render_html
from server.report.results import complete
from simulation.experiment import plan_experiment, read_all
from simulation.experiment_plan import Experiment
from simulation.phantom import write_hospitals
from simulation.twins import without_twins

CONFIG = """
[data]
size = 32
slices = 2
[model]
backbone = "fedmri_vit_mini"
weights = "random"
[objective]
local_crops = 1
"""


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "hospitals"
    write_hospitals(folder, sites=2, patients=3, external=3, seed=4)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def data(hospitals: Path, tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(CONFIG)
    return Path(shutil.copytree(hospitals, tmp_path / "hospitals"))


def plan(data: Path, cache: Path, *settings: str) -> Experiment:
    config = str(data.parent / "tiny.toml")
    return plan_experiment(config, settings, data, "external", data.parent / "run", cache)


def copied(data: Path, source: str, name: str) -> str:
    """A patient of one hospital in another one's folder: renamed, with other numbers, flipped in storage."""
    patient = sorted((data / source).glob("sub-*"))[0]
    for file in patient.rglob("*.nii.gz"):
        to = data / name / "sub-9999" / "anat" / file.name.replace(patient.name, "sub-9999")
        to.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image.from_filename(file)
        flipped = image.affine @ np.array([[-1, 0, 0, image.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        scale = 1.0 if "mask" in file.name else 0.37
        nib.save(nib.Nifti1Image((image.get_fdata()[::-1] * scale).astype(np.float32), flipped), to)
    return patient.name


def look(experiment: Experiment) -> tuple[Experiment, dict, str]:
    said: list[str] = []
    after, told = without_twins(experiment, said.append, lambda *_: None)
    return after, told, "\n".join(said)


def test_phantoms_are_all_different_people(data, cache):
    before = plan(data, cache)
    after, told, said = look(before)
    assert after is before
    assert told["pairs"] == []
    assert told["patients"] == 9
    assert told["incomparable"] == 0
    assert said == ""
    assert "Nobody was found at two hospitals" in render_html(complete({"twins": told}))


def test_a_patient_who_trains_and_is_measured_is_refused_by_name(data, cache):
    name = copied(data, "external", "hospital-a")
    with pytest.raises(DataError, match=f"hospital-a/sub-9999 is external/{name}.*with_external=drop.*=keep"):
        look(plan(data, cache))


def test_dropped_they_train_nowhere_and_the_external_hospital_is_whole(data, cache):
    name = copied(data, "external", "hospital-a")
    after, told, said = look(plan(data, cache, "twins.with_external=drop"))
    assert after.config.twins.left_out == ("hospital-a/sub-9999",)
    assert told["pairs"] == [
        {
            "kind": "external",
            "first": "hospital-a/sub-9999",
            "second": f"external/{name}",
            "overlap": told["pairs"][0]["overlap"],
            "left_out": "hospital-a/sub-9999",
        }
    ]
    assert told["pairs"][0]["overlap"] > 0.5
    assert "hospital-a/sub-9999 is left out" in said
    site = read_site(data / "hospital-a", after.config, simulated=True)
    assert stay_out(site.findings) == {"sub-9999"}
    assert stay_out(read_site(data / "external", after.config, simulated=True).findings) == set()
    assert read_all(after, lambda _: None, lambda *_: None) == ()
    page = render_html(complete({"twins": told}))
    assert "hospital-a/sub-9999 is left out" in page


def test_kept_they_stay_and_the_page_says_what_that_means(data, cache):
    copied(data, "external", "hospital-a")
    before = plan(data, cache, "twins.with_external=keep")
    after, told, said = look(before)
    assert after is before
    assert "both stay in" in said
    assert "trains, and is\nmeasured" in render_html(complete({"twins": told}))


def test_of_two_who_train_the_one_with_a_label_stays(data, cache):
    copied(data, "hospital-b", "hospital-a")  # without a row in the table: unlabelled
    table = data / "hospital-b" / "participants.tsv"
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    column = rows[0].index("subtype")
    labels = {row[0]: row[column] for row in rows[1:]}
    first = sorted((data / "hospital-b").glob("sub-*"))[0].name
    after, _, _ = look(plan(data, cache))
    expected = "hospital-a/sub-9999" if labels[first] != "n/a" else f"hospital-b/{first}"
    assert after.config.twins.left_out == (expected,)
    with pytest.raises(DataError, match="trains at two hospitals"):
        look(plan(data, cache, "twins.between_sites=refuse"))
    assert look(plan(data, cache, "twins.between_sites=keep"))[0].config.twins.left_out == ()
