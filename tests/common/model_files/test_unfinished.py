"""What a model file's neighbours say of its run."""

import json
from pathlib import Path

import pytest

from common.model_files.unfinished import unfinished

AT_SEVEN = {"state": "evaluating", "round": 7, "rounds": 9}


def left(folder: Path, status: object = None, *, report: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if status is not None:
        (folder / "status.json").write_text(status if isinstance(status, str) else json.dumps(status))
    if report:
        (folder / "report.json").write_text("{}")
    return folder / "model.safetensors"


def test_a_run_that_has_no_report_tells_its_round(tmp_path):
    said = unfinished(left(tmp_path, AT_SEVEN), {}, 9)
    assert "has not finished" in said
    assert "round 7 of 9" in said
    assert "evaluating" in said


@pytest.mark.parametrize("status", [None, "{", "[]", '{"state": 3}', AT_SEVEN | {"state": "finished"}])
def test_without_a_word_that_says_otherwise_the_file_is_believed(tmp_path, status):
    assert unfinished(left(tmp_path, status), {}, 9) == ""


def test_a_report_marks_the_end_whatever_the_status_says(tmp_path):
    assert unfinished(left(tmp_path, AT_SEVEN, report=True), {}, 9) == ""


def test_a_release_is_of_no_folder(tmp_path):
    assert unfinished(left(tmp_path, AT_SEVEN), {"format": "1"}, 9) == ""


def test_a_checkpoint_names_its_round_and_the_runs_model(tmp_path):
    file, final = tmp_path / "checkpoints" / "round-0003.safetensors", left(tmp_path, report=True)
    said = unfinished(file, {"round": "3"}, 9)
    assert "round 3 of 9" in said
    assert str(final) not in said  # it is not there
    final.touch()
    assert str(final) in unfinished(file, {"round": "3"}, 9)
