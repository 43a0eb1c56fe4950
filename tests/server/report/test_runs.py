"""`fedmri-server report`: a page anew, runs side by side, and a sentence for what cannot be shown."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from common.errors import FedMRIError
from server.cli.main import main
from server.report.compare_runs import compare_runs
from server.report.page.runs import headline, render
from server.report.publish import write_report
from server.report.report import read_report

samples = runpy.run_path(str(Path(__file__).with_name("report_samples.py")))


def other(**provenance):
    """The sample run, less sure, with other answers for the first ten patients and another seed."""
    report = samples["full"]()
    for patient in report["patients"][:10]:
        patient["probabilities"] = patient["probabilities"][::-1]
    report["provenance"] |= {"config": {"seed": 8, "model": {"depth": 2}}, **provenance}
    return report


@pytest.fixture
def runs(tmp_path):
    for name, report in (("first", samples["full"]()), ("second", other()), ("third", other(external="lake"))):
        write_report(tmp_path / name, report)
    return [tmp_path / name for name in ("first", "second", "third")]


def test_differences_are_this_run_minus_the_first_on_the_same_patients(runs):
    first, second, third = compare_runs(runs)["runs"]
    labels = np.array([p["label"] for p in read_report(runs[0])["patients"]])
    a, b = (np.array([p["probabilities"] for p in read_report(run)["patients"]]).argmax(1) for run in runs[:2])
    found = second["paired"]["differences"]["mcc"]
    assert np.isclose(found["value"], matthews_corrcoef(labels, b) - matthews_corrcoef(labels, a), atol=1e-9)
    assert found["low"] < found["value"] < found["high"]
    assert second["paired"]["n"] == len(labels)
    assert first["paired"] is first["unpaired"] is third["paired"] is None
    assert "another external hospital" in third["unpaired"]


def test_only_settings_that_differ_are_told(runs):
    assert compare_runs(runs)["config"] == {"seed": [7, 8, 8], "model.depth": [None, 2, 2]}
    assert compare_runs([runs[1], runs[1]])["config"] == {}


def test_a_run_of_an_earlier_version_differs_by_its_settings_alone(tmp_path: Path) -> None:
    old = {"seed": 7, "objective": {"dino": 0.1}, "model": {"rank": 4}, "federation": {"strategy": "fedavg"}}
    new = {"seed": 8, "objective": {"terms": {"dino": {"weight": 0.1}}}, "model": {"adapter": {"name": "lora", "rank": 4}}}
    for name, config in (("old", old), ("new", new)):
        write_report(tmp_path / name, other(config=config))
    assert compare_runs([tmp_path / "old", tmp_path / "new"])["config"] == {"seed": [7, 8]}


def test_few_patients_are_said_beside_every_comparison(tmp_path, runs, capsys):
    for name, labels in (("a", [0, 1, 2]), ("b", [0, 1, 2]), ("c", [0, 1, 2] * 5)):
        write_report(tmp_path / name, samples["bare"](labels))
    few, more = "Only 3 labelled patients: too few", "Only 15 labelled patients: read"
    page = render(compare_runs([tmp_path / "a", tmp_path / "b"]))
    assert page.count(few) == 1, "it holds for both"
    page = render(compare_runs([tmp_path / "a", tmp_path / "c"]))
    assert f"a: {few}" in page
    assert f"c: {more}" in page
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "c")]) == 0
    assert f"a: {few}" in capsys.readouterr().out
    assert "labelled patients: " not in render(compare_runs(runs[:2]))


def test_runs_that_share_a_folder_name_are_told_apart(tmp_path):
    for parent in ("a", "b"):
        write_report(tmp_path / parent / "run", samples["bare"]([0, 1, 2]))
    assert [run["name"] for run in compare_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])["runs"]] == ["a/run", "b/run"]


def test_runs_that_cannot_be_paired_are_still_shown(tmp_path):
    unlabelled, relabelled = samples["bare"]([-1, -1]), samples["bare"]([1, 2, 0])
    write_report(tmp_path / "a", samples["bare"]([0, 1, 2]))
    write_report(tmp_path / "b", unlabelled)
    write_report(tmp_path / "c", relabelled)
    compared = compare_runs([tmp_path / name for name in "abc"])
    assert compared["runs"][1]["unpaired"] == "no labelled patient in common"
    assert "another label" in compared["runs"][2]["unpaired"]
    assert "another label" in render(compared)


def test_the_page_names_the_runs_and_runs_nothing(runs):
    hostile = runs[0].parent / "<script>alert(1)<"
    write_report(hostile, samples["full"]("<b>site</b>"))
    compared = compare_runs([*runs, hostile])
    page = render(compared)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page
    assert headline(compared).replace("<", "&lt;").replace(">", "&gt;") in page
    assert "src=" not in page
    assert "href=" not in page


def test_the_verb_writes_one_page_or_compares(runs, capsys):
    (runs[0] / "report.html").unlink()
    assert main(["report", str(runs[0])]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "</html>" in (runs[0] / "report.html").read_text()
    out = runs[0].parent / "side.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "third: another external hospital" in said
    assert str(out) in said.replace("\n", "")
    assert "Paired difference" in out.read_text()
    assert main(["report", *map(str, runs[:2]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == compare_runs(runs[:2])
    assert (runs[0] / "comparison.html").is_file()


def test_errors_in_a_sentence(runs, capsys):
    assert main(["report", str(runs[0].parent)]) == 1
    assert main(["report", str(runs[0]), str(runs[0].parent)]) == 1
    assert main(["report", str(runs[0]), "--out", str(runs[0])]) == 2
    assert main(["report", str(runs[0]), "--out", "/proc/none/x.html"]) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 4
    assert all(error.startswith("Error: ") and "Traceback" not in error for error in errors)
    broken = read_report(runs[1]) | {"patients": [{"id": "a"}], "external": {"support": {"x": 1}}}
    (runs[1] / "report.json").write_text(json.dumps(broken))
    with pytest.raises(FedMRIError):
        compare_runs([runs[1], runs[1]])


def test_hospitals_of_one_name_with_other_images_are_not_paired(tmp_path: Path) -> None:
    for name, key in (("first", "a" * 64), ("second", "b" * 64), ("third", "a" * 64)):
        write_report(tmp_path / name, other(data={"external_key": key}))
    _, second, third = compare_runs([tmp_path / name for name in ("first", "second", "third")])["runs"]
    assert "same name with other images" in second["unpaired"]
    assert third["unpaired"] is None
