"""The external hospital, with a stub for the model: subsets, skipped patients, missing labels."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from common.config.run import config_from_table
from common.data.dataset import SiteData
from common.evaluation import subsets
from common.evaluation.calibration.calibration import Calibration
from common.models.trained_model import TrainedModel
from server.run import external
from server.run.external import measure_final, measure_round, open_external, read_external

CONFIG = config_from_table(
    {"data": {"modalities": ["t1", "flair"], "classes": ["a", "b"]}, "evaluation": {"bootstrap": 20, "modality_subsets": True}}
)


def hospital(labels, present) -> SiteData:
    n = len(labels)
    images = np.zeros((n, 1, 2, 4, 4), np.float16)
    images[:, 0, 0, 0, 0] = labels  # the truth, for the stub to see
    ids = tuple(f"sub-{i}" for i in range(n))
    return SiteData("ext", ids, images, np.array(present, bool), np.array(labels, np.int64), "key")


UNUSED = TrainedModel(None, {}, CONFIG)  # by the model below, that knows the answers


@pytest.fixture
def asked(monkeypatch):
    """A model that is right where it sees t1 and says class a elsewhere; records what it was shown."""
    shown = []

    def predict(trained, patients, *, present=None):
        use = patients.present if present is None else present
        shown.append((patients.ids, use.tolist()))
        truth = np.maximum(np.asarray(patients.images)[:, 0, 0, 0, 0].astype(int), 0)
        return np.eye(2)[np.where(use[:, 0], truth, 0)]

    def predict_subsets(trained, patients, wanted):
        for row, some in wanted.items():
            for subset in some:
                yield row, subset, predict(trained, patients.select([row]), present=np.array([subset]))[0]

    monkeypatch.setattr(external, "predict", predict)
    monkeypatch.setattr(subsets, "predict_subsets", predict_subsets)
    return shown


def test_a_perfect_model_has_mcc_one(asked):
    patients = hospital([0, 1, 0, 1], [[1, 1]] * 4)
    assert measure_round(UNUSED, patients) == {"mcc": pytest.approx(1.0)}
    final = measure_final(UNUSED, patients)
    assert final.external["mcc"]["value"] == pytest.approx(1.0)
    assert final.external["n"] == 4
    told = {"id": "sub-1", "label": "b", "probabilities": [0.0, 1.0], "modalities": ["t1", "flair"]}
    assert final.patients[1] == {**told, "prediction_set": None, "ood": None}
    assert (final.calibration, final.ood_summary) == (None, None)


def test_the_subsets_the_curves_and_what_so_few_patients_can_show_are_there(asked):
    final = measure_final(UNUSED, hospital([0, 1, 0, 1], [[1, 1], [1, 1], [1, 0], [0, 1]]))
    assert list(final.modality_subsets) == ["t1", "flair", "t1+flair"]
    assert final.modality_subsets["t1"]["mcc"]["value"] == pytest.approx(1.0)
    assert final.modality_subsets["flair"]["confusion"] == [[1, 0], [2, 0]]
    assert final.external["roc"]["a"] == {"fpr": [0.0, 0.5, 1.0], "tpr": [0.0, 1.0, 1.0]}
    assert final.detectable["n"] == 4
    assert final.subgroups == {}  # how they were imaged is not known


def test_subgroups_are_those_of_the_sites_files(asked, tmp_path):
    for site, age in (("north", 30), ("south", 70)):
        write_site(tmp_path / site, 10, age)
    patients = open_external(tmp_path, ["north", "south"], CONFIG, tmp_path / "cache")
    acquisitions = read_external(tmp_path, ["north", "south"], CONFIG, patients)
    assert list(acquisitions) == list(patients.ids)
    final = measure_final(UNUSED, patients, acquisitions=acquisitions)
    assert {name: group["n"] for name, group in final.subgroups["site"].items()} == {"north": 10, "south": 10}
    assert {name: group["n"] for name, group in final.subgroups["age"].items()} == {"under 40": 10, "60 and over": 10}
    assert list(final.subgroups["cluster"]) == ["2.0 x 2.0 x 4.0 mm, matrix 20, int16"]
    assert list(final.subgroups["sex"]) == ["F", "M"]


@pytest.mark.parametrize("names", [["north"], ["north", "south"]])
def test_who_stays_out_for_a_torn_file_is_not_read_again(tmp_path, names):
    for site in names:
        write_site(tmp_path / site, 3, 30)
    (tmp_path / "north" / "sub-1" / "anat" / "sub-1_T1w.nii.gz").write_bytes(b"torn")
    patients = open_external(tmp_path, names, CONFIG, tmp_path / "cache")
    assert len(patients) == 3 * len(names) - 1
    assert list(read_external(tmp_path, names, CONFIG, patients)) == list(patients.ids)


def write_site(folder, patients, age):
    rows = ["participant_id\tage\tsex\tsubtype"]
    for number in range(patients):
        name = f"sub-{number}"
        anat = folder / name / "anat"
        anat.mkdir(parents=True)
        voxels = np.random.default_rng(number + age).integers(90, 110, (20, 20, 4)).astype(np.int16)
        nib.Nifti1Image(voxels, np.diag([2.0, 2, 4, 1])).to_filename(anat / f"{name}_T1w.nii.gz")
        rows.append(f"{name}\t{age}\t{'FM'[number % 2]}\t{'ab'[number % 2]}")
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n")


def test_without_labels_the_patients_are_predicted_and_nothing_is_measured(asked):
    patients = hospital([-1, -1], [[1, 1]] * 2)
    assert measure_round(UNUSED, patients) == {}
    final = measure_final(UNUSED, patients)
    assert final.external["n"] == 0
    assert final.external["mcc"]["value"] is None
    assert final.modality_subsets == {}
    assert [p["label"] for p in final.patients] == [None, None]
    assert final.patients[0]["probabilities"] == [1.0, 0.0]


def test_one_class_alone_has_no_mcc(asked):
    assert measure_round(UNUSED, hospital([1, 1], [[1, 1]] * 2)) == {}


def test_without_a_threshold_nobody_is_called_unsuspicious():
    scores = np.array([1.0, 3.0, np.nan])
    entries, summary = external._with_ood_scores([{}, {}, {}], scores, Calibration(ood_threshold=2.0, patients=6))
    assert [e["ood"] and e["ood"]["flagged"] for e in entries] == [None, True, None]
    assert summary == {"rate": 0.05, "threshold": 2.0, "flagged": 1, "of": 2, "held_back": 6}
    entries, summary = external._with_ood_scores([{}, {}, {}], scores, Calibration(ood_threshold=2.0, patients=20))
    assert [e["ood"] and e["ood"]["flagged"] for e in entries] == [False, True, None]
    assert summary == {"rate": 0.05, "threshold": 2.0, "flagged": 1, "of": 2}
    entries, summary = external._with_ood_scores([{}, {}, {}], scores, Calibration())
    assert [e["ood"] and e["ood"]["flagged"] for e in entries] == [None, None, None]
    assert (summary["threshold"], summary["flagged"], summary["of"]) == (None, None, 2)


def test_with_and_without_covariates_and_no_age_in_the_report(monkeypatch):
    """A model that is right where it is told the age."""
    table = {"data": {"modalities": ["t1", "flair"], "covariates": ["age", "sex"]}, "task": {"classes": ["a", "b"]}}
    config = config_from_table({**table, "evaluation": {"bootstrap": 20}})

    def predict(trained, patients, *, present=None):
        old = patients.covariates[:, 0] > 50  # of NaN: no
        return np.eye(2)[old.astype(int)] * 0.8 + 0.1

    monkeypatch.setattr(external, "predict", predict)
    patients = hospital([0, 1, 0, 1, -1], [[1, 1]] * 5)
    ages = np.array([30, 70, 40, 71.25, np.nan], np.float32)
    patients = replace(patients, covariates=np.stack([ages, np.full(5, np.nan, np.float32)], axis=1))
    final = measure_final(TrainedModel(None, {}, config), patients)
    found = final.covariates
    assert found["known"] == {"age": 4, "sex": 0}
    assert found["of"] == 5
    assert found["with"]["mcc"]["value"] == pytest.approx(1.0)
    assert found["without"]["mcc"]["value"] == pytest.approx(0.0)
    assert found["without"]["drop"]["value"] == pytest.approx(1.0)
    assert [p["covariates"] for p in final.patients] == [["age"]] * 4 + [[]]
    assert final.patients[1]["probabilities_without_covariates"] == pytest.approx([0.9, 0.1])
    assert "71.25" not in json.dumps(final.patients)
