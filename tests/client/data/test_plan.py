"""The plan: what is chosen by itself, and what of a person's edits is taken or refused by its line."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.data.candidates import Candidate, candidates
from client.data.dicom.series import Frame, Series
from client.data.plan import read_plan, write_plan
from client.data.pseudonym import Pseudonyms
from common.errors import DataError
from tests.client.data.conftest import AGENT, TAGS
from tests.client.data.test_modality import header


def series(kind: str, *, study: str = "1", time: str = "100000", step: float = 3.0, slices: int = 20, **tags) -> Series:
    """A series of a made-up header; nothing lies on a disk."""
    patient = "P1"
    given = {**TAGS[kind], **(AGENT if kind == "t1c" else {}), "PatientID": patient, "StudyInstanceUID": f"1.{study}", **tags}
    dataset = header(**given, StudyDate=f"2024030{study}", AcquisitionTime=time)
    frames = tuple(Frame((0.0, 0.0, k * step), (1, 0, 0, 0, 1, 0), (1.0, 1.0), ()) for k in range(slices))
    return Series(f"{patient}{study}{kind}{time}", (), dataset, frames)


def listed(tmp_path: Path, *found: Series) -> list[Candidate]:
    return candidates(found, Pseudonyms(tmp_path))


def used(found: list[Candidate]) -> set[str]:
    return {candidate.series.id for candidate in found if candidate.use}


def test_one_series_a_modality_the_finest(tmp_path: Path) -> None:
    coarse, fine = series("t2", step=6.0), series("t2", time="100500", step=1.0, slices=160)
    assert used(listed(tmp_path, coarse, fine, series("flair"))) == {fine.id, "P11flair100000"}


def test_a_reformat_gives_way(tmp_path: Path) -> None:
    original = series("t2", step=5.0)
    reformat = series("t2", time="110000", step=1.0, ImageType=["DERIVED", "SECONDARY", "MPR"])
    assert used(listed(tmp_path, original, reformat)) == {original.id}


def test_studies_are_never_mixed_and_the_fullest_is_taken(tmp_path: Path) -> None:
    first, second = [series("t1c")], [series(kind, study="2") for kind in ("t1c", "t2")]
    found = listed(tmp_path, *first, *second)
    assert used(found) == {one.id for one in second}
    assert [c.study for c in found] == [1, 2, 2]
    assert "another study of the patient is used (2)" in found[0].reasons


def test_an_agent_in_every_header_of_the_study_is_doubted(tmp_path: Path) -> None:
    first = series("t1c", SeriesDescription="T1 SE", time="100000")
    second = series("t1c", SeriesDescription="T1 SE", time="102000")
    found = listed(tmp_path, first, second)
    assert used(found) == {second.id}
    assert "perhaps the plain one" in " ".join(found[0].decision.reasons)


def test_a_plain_t1_after_the_contrast_is_doubted(tmp_path: Path) -> None:
    assert used(listed(tmp_path, series("t1c"), series("t1", time="103000", SeriesDescription="T1 SE"))) == {"P11t1c100000"}


def test_one_number_for_two_people_is_not_used(tmp_path: Path) -> None:
    one = series("t1", PatientBirthDate="19700101")
    other = series("t1c", study="2", PatientBirthDate="19800101")
    found = listed(tmp_path, one, other)
    assert not used(found)
    assert "several birth dates" in found[0].reasons[0]


def test_half_a_volume_is_not_used_by_itself(tmp_path: Path) -> None:
    """A series split in two: as one stack all 20 slices are even, and neither part is the whole head."""
    whole = series("flair")
    upper, lower = (replace(whole, id=name, frames=part) for name, part in (("up", whole.frames[9:]), ("low", whole.frames[:9])))
    found = listed(tmp_path, upper, lower, series("t2"))
    assert used(found) == {"P11t2100000"}
    reasons = {candidate.series.id: " ".join(candidate.reasons) for candidate in found}
    assert "series low (9 slices) goes on where it ends" in reasons["up"]
    assert "series up (11 slices)" in reasons["low"]


def test_a_whole_series_goes_before_two_halves(tmp_path: Path) -> None:
    whole = series("flair")
    halves = [replace(whole, id=name, frames=part) for name, part in (("up", whole.frames[9:]), ("low", whole.frames[:9]))]
    assert used(listed(tmp_path, whole, *halves)) == {whole.id}


@pytest.mark.parametrize("other", [{"step": 4.0}, {"slices": 20}])
def test_series_beside_each_other_are_no_halves(tmp_path: Path, other: dict[str, Any]) -> None:
    """A repeat of all slices, or another step, does not go on where the first ends."""
    assert len(used(listed(tmp_path, series("flair"), series("flair", time="110000", **other)))) == 1


@pytest.fixture
def plan(tmp_path: Path) -> tuple[Path, list[Candidate]]:
    found = listed(tmp_path, series("t1c"), series("t2"), series("t2", time="110000", step=9.0), series("flair", study="2"))
    broken = replace(found[0].series, id="broken", problem="2 slices are missing")
    found.append(replace(found[0], series=broken, use=False))
    write_plan(tmp_path / "plan.tsv", found)
    return tmp_path / "plan.tsv", found


def edit(path: Path, line: int, **cells: str) -> None:
    """As a person with a spreadsheet does."""
    rows = list(csv.DictReader(path.open(), delimiter="\t"))
    rows[line - 2].update(cells)
    with path.open("w") as file:
        table = csv.DictWriter(file, rows[0].keys(), delimiter="\t")
        table.writeheader()
        table.writerows(rows)


def test_an_unedited_plan_does_what_it_says(plan) -> None:
    path, found = plan
    assert {line.series for line, _ in read_plan(path, found)} == used(found)


def test_an_edit_is_followed(plan) -> None:
    path, found = plan
    edit(path, 3, use="no")
    edit(path, 4, use="YES", modality="t1")
    lines = {line.modality: line.series for line, _ in read_plan(path, found)}
    assert lines == {"t1c": "P11t1c100000", "t1": "P11t2110000"}


@pytest.mark.parametrize(
    ("line", "cells", "said"),
    [
        (2, {"use": "maybe"}, "line 2: use: expected yes or no, got 'maybe'"),
        (3, {"modality": "swi"}, "line 3: modality: expected t1, t1c, t2, flair or other, got 'swi'"),
        (2, {"series": "unknown"}, "line 2: series 'unknown' is not in the source"),
        (2, {"patient": "sub-1"}, "line 2: patient: the source says"),
        (2, {"modality": "other"}, "line 2: use is yes, but the modality is other"),
        (6, {"use": "yes"}, "line 6: cannot be used: 2 slices are missing"),
        (4, {"use": "yes"}, "t2 is used more than once"),
        (5, {"use": "yes"}, "sessions are never mixed"),
    ],
)
def test_a_wrong_line_is_named(plan, line, cells, said) -> None:
    path, found = plan
    edit(path, line, **cells)
    with pytest.raises(DataError) as caught:
        read_plan(path, found)
    assert said in str(caught.value)


def test_a_plan_is_never_overwritten(plan) -> None:
    with pytest.raises(DataError, match="there is a plan already"):
        write_plan(*plan)


def test_geometry_ranks_by_the_coarsest_step() -> None:
    assert np.max(series("t2", step=5.0).geometry.spacing) == 5.0
