"""The target of a patient from the words of a table; subtype and grade by configuration alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from common.cli import config_path
from common.config.run import RunConfig, config_from_table, load_config
from common.data.cases import UNLABELLED, read_site
from common.errors import ConfigError
from common.schema import dotted_names
from common.tasks.classification import Classification
from common.tasks.registry import TASKS

GRADE = Classification(("2", "3", "4"), "grade")


@pytest.mark.parametrize(
    ("word", "target"),
    [("2", 0), ("2.0", 0), ("3", 1), ("4.00", 2), (" 4", 2), ("2.5", None), ("1", None), ("II", None), ("", None), ("nan", None)],
)
def test_numbers_are_compared_by_value(word: str, target: int | None) -> None:
    assert GRADE.target(word) == target


def test_other_words_are_compared_letter_by_letter() -> None:
    assert [Classification().target(word) for word in ("oligodendroglioma", "Oligodendroglioma", "2")] == [2, None, None]


@pytest.mark.parametrize("classes", [(), ("a",), ("a", "a"), ("2", "2.0"), ("", "a", "b"), (" ", "a")])
def test_classes_that_cannot_be_told_apart_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"task\.classes: expected at least two names"):
        Classification(classes)


def test_the_measures_and_curves_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    labels, p = generator.integers(0, 3, 40), generator.dirichlet((1, 1, 1), 40)
    found = GRADE.evaluate(labels, p, bootstrap=0, generator=generator)
    assert found["mcc"]["value"] == pytest.approx(matthews_corrcoef(labels, p.argmax(1)))
    assert found["auroc"]["per_class"]["4"] == pytest.approx(roc_auc_score(labels == 2, p[:, 2]))
    assert list(found["support"]) == list(GRADE.curves(labels, p)["roc"]) == ["2", "3", "4"]


def test_the_grade_is_a_configuration_of_the_same_task() -> None:
    assert load_config(config_path("grade")).task == GRADE
    assert RunConfig().task == Classification(("idh-mutant-astrocytoma", "idh-wildtype", "oligodendroglioma"), "subtype")


def test_a_site_is_read_by_the_task(tmp_path: Path) -> None:
    words = {"sub-1": "2", "sub-2": "4.0", "sub-3": "n/a", "sub-4": "III"}
    for name in words:
        (tmp_path / name / "anat").mkdir(parents=True)
        (tmp_path / name / "anat" / f"{name}_T1w.nii.gz").touch()
    rows = "".join(f"{name}\toligodendroglioma\t{word}\n" for name, word in words.items())
    (tmp_path / "participants.tsv").write_text("participant_id\tsubtype\tgrade\n" + rows)
    config = RunConfig(task=GRADE)
    (unknown,) = read_site(tmp_path, config).findings
    assert (unknown.patient, unknown.code, unknown.level) == ("sub-4", "label-unknown", "error")
    assert unknown.found == "label 'III' is none of 2, 3, 4"
    (tmp_path / "site.toml").write_text('[labels]\nmap = { III = "3" }\n')
    assert [case.label for case in read_site(tmp_path, config).cases] == [0, 2, UNLABELLED, 1]
    (tmp_path / "site.toml").unlink()
    assert {case.label for case in read_site(tmp_path, RunConfig()).cases} == {2}


@pytest.mark.parametrize("task", TASKS.values())
def test_every_task_names_a_term_that_there_is(task: Any) -> None:
    assert task.term in {name.rpartition(".")[2] for name in dotted_names(RunConfig) if name.startswith("objective.")}


@pytest.mark.parametrize(
    "table",
    [
        {"data": {"classes": ["u", "v"], "label": "who", "size": 64}},
        {"data": {"size": 64}, "task": {"name": "classification", "classes": ["u", "v"], "label": "who"}},
        {"data": {"size": 64}, "task": {"classes": ["u", "v"], "label": "who"}},
        {"data": {"size": 64, "classes": ["u", "v"]}, "task": {"label": "who"}},
    ],
)
def test_earlier_keys_mean_the_same(table: dict) -> None:
    config = config_from_table(table)
    assert (config.task, config.data.size) == (Classification(("u", "v"), "who"), 64)


def test_a_key_by_both_names_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.classes is task\.classes today"):
        config_from_table({"data": {"classes": ["u", "v"]}, "task": {"name": "classification", "classes": ["u", "w"]}})


def test_a_setting_may_stand_alone() -> None:
    config = load_config(config_path("demo"), ("label=grade", "classes=['2','3']"))
    assert config.task == Classification(("2", "3"), "grade")
    assert load_config(config_path("demo"), ("data.classes=['2','3']",)).task.classes == ("2", "3")
    with pytest.raises(ConfigError, match="task: expected one of classification, segmentation"):
        load_config(config_path("demo"), ("task=regression",))
