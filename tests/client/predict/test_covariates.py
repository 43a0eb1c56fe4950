"""What a prediction is told of a patient besides images: by options, by the site's table; and what it made of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.cli.main import main
from client.predict.card import render_card
from client.predict.confidence import covariate_words
from client.predict.covariates import with_covariates
from client.predict.inputs import PredictionInputs, find_patients
from client.predict.prediction import answer, answer_table, as_batch, weigh_modalities
from common.config.covariates import COVARIATES
from common.data.slices import slice_case
from common.errors import ConfigError
from common.evaluation.calibration.calibration import Calibration, apply_temperature
from common.model_files.open import open_saved, read_saved
from common.training.predict import predict

AGE, SEX = ROWS = (COVARIATES["age"], COVARIATES["sex"])
NAN = float("nan")


def patient(folder: Path) -> tuple[Path, PredictionInputs]:
    (folder / "sub-1" / "anat").mkdir(parents=True)
    (folder / "sub-1" / "anat" / "x_T1w.nii.gz").touch()
    return folder / "sub-1", find_patients(folder / "sub-1")


def table(folder: Path, *rows: str) -> None:
    (folder / "participants.tsv").write_text("participant_id\tage\tsex\n" + "".join(row + "\n" for row in rows))


def test_options_go_before_the_table_and_the_table_before_nothing(tmp_path: Path) -> None:
    path, asked = patient(tmp_path)
    np.testing.assert_equal(with_covariates(asked, path, [], ROWS).cases[0].covariates, (NAN, NAN))
    table(tmp_path, "sub-1\t61\tF")
    assert with_covariates(asked, path, [], ROWS).cases[0].covariates == (61.0, 0.0)
    assert with_covariates(asked, path, ["age=54"], ROWS).cases[0].covariates == (54.0, 0.0)
    np.testing.assert_equal(with_covariates(asked, path, ["age = n/a", "sex=m"], ROWS).cases[0].covariates, (NAN, 1.0))
    assert with_covariates(asked, path, [], ()) is asked, "a model that takes nothing reads no table"


@pytest.mark.parametrize(
    ("words", "rows", "why"),
    [
        (["age=54Y"], ROWS, "--covariate age=54Y: expected a number in years from 0 to 120, or n/a"),
        (["age=1954"], ROWS, "--covariate age=1954: expected a number in years"),
        (["kps=80"], ROWS, r"this model takes: age \(a number in years from 0 to 120\), sex \(one of F, M\)"),
        (["age"], ROWS, "--covariate age: expected NAME=VALUE"),
        (["age=54"], (), "this model takes: none"),
        (["age=54", "age=55"], ROWS, "--covariate: expected each once, got age=54, age=55"),
    ],
)
def test_wrong_words(tmp_path: Path, words: list[str], rows: tuple, why: str) -> None:
    path, asked = patient(tmp_path)
    with pytest.raises(ConfigError, match=why):
        with_covariates(asked, path, words, rows)


def test_of_a_folder_the_table_says_it_and_an_unreadable_row_stops_nobody_else(tmp_path: Path) -> None:
    for name in ("sub-1", "sub-2", "sub-3"):
        (tmp_path / name / "anat").mkdir(parents=True)
        (tmp_path / name / "anat" / "x_T1w.nii.gz").touch()
    table(tmp_path, "sub-1\t61\tF", "sub-2\t054Y\tF")
    asked = find_patients(tmp_path)
    found = with_covariates(asked, tmp_path, [], ROWS)
    np.testing.assert_equal([case.covariates for case in found.cases], [(61.0, 0.0), (NAN, NAN)])
    assert found.broken == {"sub-2": "age '054Y' is not a number in years from 0 to 120; correct the table, or write n/a"}
    with pytest.raises(ConfigError, match=r"of one patient\. For a folder"):
        with_covariates(asked, tmp_path, ["age=54"], ROWS)


def test_the_evidence_is_the_fall_of_the_answer_without_it(model_of, phantom: Path) -> None:
    opened = open_saved(read_saved(model_of(data={"covariates": ["age", "sex"]})))
    opened = replace(opened, calibration=Calibration(1.5, 0.9, 0.7, 0.05, 50.0, 30, ("a",)))
    case = replace(find_patients(phantom, opened.config.data.modalities).cases[0], covariates=(80.0, NAN))
    read = [(case, slice_case(case, opened.config.data))]
    (one,) = weigh_modalities(opened, answer(opened, read))
    untold = apply_temperature(predict(opened, as_batch(read)), 1.5)[0]
    assert one.by_covariate is not None
    winning = int(one.probabilities.argmax())
    assert one.by_covariate[0] == pytest.approx(one.probabilities[winning] - untold[winning], abs=1e-5)
    assert one.by_covariate[0] != pytest.approx(0.0, abs=1e-4)
    assert np.isnan(one.by_covariate[1])
    told = answer_table(one)
    assert told["covariates"] == {"age": "80", "sex": None}
    assert told["evidence"]["covariates"] == {"age": pytest.approx(one.by_covariate[0])}
    assert covariate_words(one) == "age 80; not known: sex"
    page = render_card(one)
    assert "Evidence by clinical covariate" in page
    assert "age 80; not known: sex" in page


def test_a_model_without_covariates_says_nothing_of_them(run: Path, phantom: Path) -> None:
    opened = open_saved(read_saved(run))
    case = find_patients(phantom, opened.config.data.modalities).cases[0]
    (one,) = answer(opened, [(case, slice_case(case, opened.config.data))])
    assert answer_table(one)["covariates"] == {}
    assert "covariate" not in render_card(one)


def test_on_the_command_line(model_of, phantom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "predict",
        str(phantom),
        "--model",
        str(model_of(data={"covariates": ["age", "sex"]})),
        "--evidence",
        "none",
        "--json",
    ]
    assert main([*asked, "--age", "54", "--covariate", "sex=F"]) == 0
    assert json.loads(capsys.readouterr().out)["covariates"] == {"age": "54", "sex": "F"}
    assert main([*asked, "--sex", "X"]) == 2
    assert "--covariate sex=X: expected one of F, M, or n/a." in " ".join(capsys.readouterr().err.split())
