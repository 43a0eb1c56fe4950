"""From participants.tsv to an array: what is missing, what cannot be read, and that nothing of it is silent."""

from pathlib import Path

import numpy as np
import pytest

from common.config.run import RunConfig, config_from_table
from common.config.sections import DataConfig
from common.data.cases import read_site
from common.data.check import check_site
from common.data.covariates import as_array, of_row
from common.data.dataset import SiteData

RUN = config_from_table({"data": {"covariates": ["age", "sex"]}, "task": {"classes": ["a", "b"]}})
TABLE = "participant_id\tage\tsex\tsubtype\n"


def site_of(write_site, table: str | None, **files: list[str]) -> Path:
    folder = write_site("s", files or {f"sub-{n}": ["t1"] for n in (1, 2, 3, 4)}, None)
    if table is not None:
        (folder / "participants.tsv").write_text(table)
    return folder


def test_each_patient_has_their_own_and_whoever_is_in_no_row_has_none(write_site) -> None:
    folder = site_of(write_site, TABLE + "sub-1\t61\tF\ta\nsub-2\tn/a\tmale\tb\nsub-3\t 45.5 \t\ta\n")
    site = read_site(folder, RUN)
    found = as_array([case.covariates for case in site.cases], RUN.data.covariates)
    assert found.dtype == np.float32
    nan = np.nan
    np.testing.assert_array_equal(found, [[61, 0], [nan, 1], [45.5, nan], [nan, nan]])
    assert site.findings == ()
    assert [case.label for case in site.cases] == [0, 1, 0, -1]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("sub-1\t5_4\tF\ta", "age '5_4' is not a number"),
        ("sub-1\t\u0665\u0664\tF\ta", "is not a number"),
        (
            "sub-1\t54Y\tF\ta",
            "age '54Y' is not a number in years from 0 to 120; expected a value that the run can take, or n/a. Correct the table",
        ),
        ("sub-1\t1954\tF\ta", "age '1954' is not a number in years from 0 to 120"),
        ("sub-1\t54\tw\ta", "sex 'w' is not one of F, M"),
    ],
)
def test_what_cannot_be_read_is_said_by_name_and_only_where_the_run_asks_for_it(write_site, row: str, words: str) -> None:
    folder = site_of(write_site, TABLE + row + "\n")
    site = read_site(folder, RUN)
    (error,) = [one for one in site.findings if one.level == "error"]
    assert (error.patient, error.code) == ("sub-1", "covariate-unread")
    assert words in str(error)
    assert not [one for one in read_site(folder, RunConfig(task=RUN.task)).findings if one.level == "error"]


def test_a_column_or_a_table_that_is_not_there_is_a_note(write_site) -> None:
    folder = site_of(write_site, "participant_id\tyears\tsubtype\nsub-1\t50\ta\n")
    site = read_site(folder, RUN)
    assert [(one.level, one.found) for one in site.findings] == [
        (
            "note",
            f"participants.tsv has no column {name} (it has participant_id, years, subtype): the model is told nobody's {name} here",  # noqa: E501
        )
        for name in ("age", "sex")
    ]
    assert np.isnan([case.covariates for case in site.cases]).all()
    (folder / "participants.tsv").unlink()
    assert "no participants.tsv: the model is told nobody's age here" in [one.found for one in read_site(folder, RUN).findings]


def test_a_column_in_other_letters_is_read_and_said(write_site) -> None:
    site = read_site(site_of(write_site, "Participant ID\tAge\tSEX\tSubtype\nsub-1\t50\tf\ta\n"), RUN)
    assert (site.cases[0].label, site.cases[0].covariates) == (0, (50.0, 0.0))
    assert [one.code for one in site.findings] == ["column-renamed"] * 4


def test_a_second_column_in_other_letters_that_says_otherwise_is_told(write_site) -> None:
    header = "participant_id\tage\tsex\tsubtype\tSubtype\tAGE\n"
    site = read_site(site_of(write_site, header + "sub-1\t50\tf\ta\tb\t50\nsub-2\t40\tm\tb\tn/a\t40\n"), RUN)
    assert [case.label for case in site.cases[:2]] == [0, 1]  # by the column of the very name
    told = [(one.code, one.level, one.found) for one in site.findings]
    text = "beside 'subtype', which is read, there is 'Subtype', which says otherwise in 1 rows (line 2 first)"
    assert told == [("column-twice", "warning", text)]


def test_the_check_counts_of_whom_each_is_known(write_site) -> None:
    site = read_site(site_of(write_site, TABLE + "sub-1\t61\tF\ta\nsub-2\t40\t\tb\n"), RUN)
    assert check_site(site, RUN).covariates == {"age": 2, "sex": 1}
    assert check_site(read_site(site.root, RunConfig(task=RUN.task)), RunConfig(task=RUN.task)).covariates == {}


def test_an_age_that_only_a_birthday_changes_builds_no_slices_anew() -> None:
    assert DataConfig().of_slices() == RUN.data.of_slices()
    assert "covariates" not in RUN.data.of_slices()


def test_known_of_nobody() -> None:
    known = np.array([[1, np.nan], [np.nan, np.nan]], np.float32)
    data = SiteData("s", ("a", "b"), np.zeros((2, 1, 1, 1, 1), np.float16), np.ones((2, 1), bool), np.zeros(2, int), "", known)
    assert data.known_of_nobody(["age", "sex"]) == ["sex"]


def test_nothing_known_and_nothing_asked() -> None:
    assert of_row({"age": "54"}, ()) == ((), [])
    assert as_array([(), ()], ()).shape == (2, 0)
    assert np.isnan(as_array([(), (3.0, 1.0)], RUN.data.covariates)[0]).all()
