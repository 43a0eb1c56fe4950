"""Several findings of a patient from the columns of a table; what does not fit such a run is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.cli import config_path
from common.config.classes import require_classes
from common.config.findings import LEFT_OUT
from common.config.run import RunConfig, config_from_json, config_from_table, load_config
from common.data.cases import read_site
from common.data.check import check_site
from common.data.survey import CLASSES, Facts, counts
from common.errors import ConfigError, DataError
from common.tasks.findings import Findings
from common.ternary import NO, UNKNOWN, YES, encode
from common.training.trainable import no_label

TASK = Findings(("edema", "effusion"))
TABLE: dict[str, Any] = {
    "task": {"name": "findings", "findings": ["edema", "effusion"]},
    "objective": {"terms": {name: {"weight": 0.0} for name in ("classification", "dino", "ibot", "koleo")}},
    "evaluation": {"every": 0},
}
TABLE["objective"]["terms"]["findings"] = {"weight": 1.0}
CONFIG = config_from_table(TABLE)


def changed(section: str, key: str, value: object) -> dict[str, Any]:
    return {**TABLE, section: {**TABLE.get(section, {}), key: value}}


def terms(**weights: float) -> dict[str, Any]:
    after = {**TABLE["objective"]["terms"], **{name: {"weight": weight} for name, weight in weights.items()}}
    return {**TABLE, "objective": {"terms": after}}


def site_of(folder: Path, table: str, toml: str = "") -> Path:
    for line in table.splitlines()[1:]:
        name = line.split("\t")[0]
        (folder / name / "anat").mkdir(parents=True, exist_ok=True)
        (folder / name / "anat" / f"{name}_T1w.nii.gz").touch()
    (folder / "participants.tsv").write_text(table)
    (folder / "site.toml").write_text(toml)
    return folder


@pytest.mark.parametrize(
    ("word", "target"),
    [
        ("yes", YES),
        ("Yes", YES),
        ("1", YES),
        ("1.0", YES),
        (" TRUE ", YES),
        ("positive", YES),
        ("no", NO),
        ("0", NO),
        ("0.00", NO),
        ("n", NO),
        ("absent", NO),
        ("", None),
        ("n/a", None),
        ("-1.0", None),
        ("2", None),
        ("maybe", None),
        ("nan", None),
    ],
)
def test_words_of_yes_and_no(word: str, target: int | None) -> None:
    assert TASK.target(word) == target


@pytest.mark.parametrize("findings", [(), ("a", "A"), ("a", " "), tuple(f"f{n}" for n in range(40))])
def test_findings_that_cannot_be_told_apart_or_carried_are_refused(findings: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"task\.findings: expected 1 to 39 different columns"):
        Findings(findings)


def test_each_finding_has_a_probability_of_its_own() -> None:
    logits = torch.tensor([[0.0, 3.0], [-2.0, -2.0]])
    torch.testing.assert_close(TASK.probabilities(logits), 1 / (1 + torch.exp(-logits)))
    assert (TASK.outputs, TASK.columns, TASK.exclusive) == (2, ("edema", "effusion"), False)


def test_a_finding_may_be_unknown_where_another_is_known(tmp_path: Path) -> None:
    table = "participant_id\tedema\tEffusion\nsub-1\tyes\tn/a\nsub-2\t0\t1\nsub-3\tn/a\tn/a\nsub-4\tno\tuncertain\n"
    site = read_site(site_of(tmp_path, table), CONFIG)
    assert [case.label for case in site.cases] == [encode((YES, UNKNOWN)), encode((NO, YES)), -1, encode((NO, UNKNOWN))]
    [wrong] = [one for one in site.findings if one.patient]
    assert (wrong.patient, wrong.code, wrong.found) == ("sub-4", "label-unknown", "label effusion 'uncertain' is none of yes, no")
    assert [case.id for case in site.usable().cases] == ["sub-1", "sub-2", "sub-3"]
    mapped = read_site(site_of(tmp_path, table, '[labels]\nmap = { uncertain = "n/a" }\n'), CONFIG)
    assert len(mapped.usable().cases) == 4
    assert [TASK.answers(case.label) for case in site.cases[:2]] == [
        {"edema": True, "effusion": None},
        {"edema": False, "effusion": True},
    ]
    assert TASK.named(site.cases[1].label) == ("effusion",)


def test_a_site_may_call_columns_otherwise_or_lack_one(tmp_path: Path) -> None:
    table = "participant_id\tOedema?\nsub-1\tyes\nsub-2\tno\n"
    site = read_site(site_of(tmp_path, table, '[labels]\ncolumns = { edema = "Oedema?" }\n'), CONFIG)
    assert [case.label for case in site.cases] == [encode((YES, UNKNOWN)), encode((NO, UNKNOWN))]
    [said] = [one for one in site.findings if one.code == "column-none"]
    assert said.found == "participants.tsv has no column effusion: it is unknown of every patient here"
    [lost] = [one for one in read_site(site_of(tmp_path, table), CONFIG).findings if one.code == "labels-none"]
    assert "no column edema, effusion" in lost.found
    with pytest.raises(DataError, match=r"no column oedem.*Correct labels\.columns"):
        read_site(site_of(tmp_path, table, '[labels]\ncolumns = { edema = "oedem" }\n'), CONFIG)
    with pytest.raises(ConfigError, match=r"labels\.column = 'x' is one column, and the run reads edema, effusion"):
        read_site(site_of(tmp_path, table, '[labels]\ncolumn = "x"\n'), CONFIG)
    with pytest.raises(ConfigError, match=r"labels\.map: expected words yes, no or n/a, got mild"):
        read_site(site_of(tmp_path, table, '[labels]\nmap = { "1+" = "mild" }\n'), CONFIG)
    none = read_site(site_of(tmp_path, table, '[labels]\ncolumn = "none"\n'), CONFIG)
    assert {case.label for case in none.cases} == {-1}


def test_check_and_survey_count_them(tmp_path: Path) -> None:
    """A survey tells no finding: who has which together may tell who it is."""
    table = "participant_id\tedema\teffusion\nsub-1\tyes\tyes\nsub-2\tno\tyes\nsub-3\tn/a\tn/a\n"
    site = read_site(site_of(tmp_path, table), CONFIG)
    assert check_site(site, CONFIG, quick=True).classes == {"edema": 1, "effusion": 2, "unlabelled": 1}
    facts = [Facts("a", "t1", "labelled", "", "", "", (), {}, {}), Facts("b", "t1", "unlabelled", "", "", "", (), {}, {})]
    assert dict(counts(facts, CONFIG)[CLASSES].counts) == {"labelled": 1, "unlabelled": 1}


def test_the_shipped_configuration_is_one() -> None:
    config = load_config(config_path("findings"))
    assert config.task.classes == ("idh_mutant", "codeleted_1p19q", "enhancing")
    assert config_from_json(config.to_json()) == config
    assert "columns idh_mutant" not in no_label(config)
    assert "(column idh_mutant, codeleted_1p19q, enhancing of participants.tsv)" in no_label(config)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (terms(findings=0.0), r"objective\.terms\.findings\.weight = 0\.0"),
        (terms(classification=0.5), r"objective\.terms\.classification\.weight = 0\.5"),
        (terms(fixmatch=0.5), r"objective\.terms\.fixmatch\.weight = 0\.5"),
        (terms(mean_teacher=0.5), r"objective\.terms\.mean_teacher\.weight = 0\.5"),
        (terms(segmentation=0.5), r"objective\.terms\.segmentation\.weight = 0\.5"),
        (terms(dino=0.1), r"model\.prototypes = 0.*64"),
        (changed("personal", "ditto_lambda", 0.1), "personal"),
        (changed("privacy", "enabled", True), r"privacy\.enabled = True.*a patient's class"),
        (changed("evaluation", "holdout", 0.2), r"evaluation\.holdout = 0\.2"),
        (changed("evaluation", "stage", "best"), r"evaluation\.stage = 'best'"),
        (changed("evaluation", "every", 1), r"evaluation\.every = 1"),
        (changed("data", "covariates", [{"name": "edema", "values": ["yes", "no"]}]), "'edema' is a target itself"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(table: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config_from_table(table)


def test_other_runs_have_no_findings_to_learn_and_this_one_no_classes() -> None:
    with pytest.raises(ConfigError, match=r'task\.name = "classification" has none'):
        config_from_table({"objective": {"terms": {"findings": {"weight": 1.0}}}})
    with pytest.raises(ConfigError, match=r'Export knows runs that predict a class, and task\.name is "findings"'):
        require_classes(CONFIG, "Export")
    require_classes(RunConfig(), "Export")
    assert LEFT_OUT[-1].startswith("private rounds")


def test_the_task_measures_by_its_own_threshold() -> None:
    labels, p = np.array([encode((YES, NO)), encode((NO, YES))]), np.array([[0.4, 0.1], [0.2, 0.3]])
    found = Findings(("a", "b"), threshold=0.25).evaluate(labels, p, bootstrap=0, generator=np.random.default_rng(0))
    assert found["findings"]["mean"]["mcc"]["value"] == 1.0
    assert found["findings"]["threshold"] == 0.25
