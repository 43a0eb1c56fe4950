"""The site's record of who trains in a run, and the keyed hash of their data."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.round.site_context import SiteContext
from client.round.trained_on import data_key, note_trained, read_trained, runs_with
from common.data.dataset import SiteData
from common.errors import FederationError
from common.messages.round import Task


def patients(ids=("sub-1", "sub-2"), sources=("x", "y"), labels=(0, 1), age=50.0) -> SiteData:
    n = len(ids)
    covariates = np.full((n, 1), age, np.float32)
    images, present = np.zeros((n, 1, 1, 2, 2), np.float16), np.ones((n, 1), bool)
    return SiteData("a", ids, images, present, np.array(labels, np.int64), "key", covariates, sources=sources)


@pytest.fixture
def note(tmp_path: Path):
    def call(data: SiteData, number: int = 1, run: str = "r1", home: Path = tmp_path, simulated: bool = False) -> str:
        home.mkdir(exist_ok=True)
        context = SiteContext("a", home / "site.toml", home / "cache", simulated)
        (home / "site.toml").touch()
        return note_trained(context, Task(number, "", "", "", run), data)

    return call


def test_the_hash_changes_with_anything_of_a_patient_and_with_nothing_else(note, tmp_path: Path) -> None:
    same = note(patients())
    assert len(same) == 64
    assert note(patients(), 2) == note(patients(), 1, "r2") == same
    changes = [
        patients(sources=("x", "z")),
        patients(labels=(0, -1)),
        patients(age=51.0),
        patients(ids=("sub-1", "sub-3")),
        patients(("sub-1",), ("x",), (0,)),
    ]
    assert len({same, *(note(data, 3) for data in changes)}) == 6
    assert note(patients(), home=tmp_path / "other") != same  # by another key nobody can compare
    assert note(patients(), simulated=True) == ""


def test_the_record_says_who_trained_when_and_whose_data_changed(note, tmp_path: Path, caplog) -> None:
    for number, source in ((1, "y"), (2, "y"), (3, "replaced")):
        note(patients(sources=("x", source)), number)
    note(patients(("sub-2", "sub-9"), ("replaced", "z"), (1, 0)), 4)
    found = {used.patient: (used.first, used.last, used.others) for used in read_trained(tmp_path, "r1")}
    assert found == {"sub-1": (1, 3, 0), "sub-2": (1, 4, 1), "sub-9": (4, 4, 0)}
    said = "\n".join(caplog.messages)
    assert said.count("have other files") == 1
    assert "round 3: since the run's last round sub-2 have other files" in said
    assert "sub-9 came" in said
    assert "sub-1 are gone" in said
    note(patients(), 1, "r2")
    assert set(runs_with(tmp_path, "sub-1")) == {"r1", "r2"}
    assert runs_with(tmp_path, "sub-9").keys() == {"r1"}


def test_key_and_record_are_for_this_user_alone_and_the_record_holds_no_plain_hash(note, tmp_path: Path) -> None:
    note(patients())
    (record,) = (tmp_path / "trained").iterdir()
    for file in (record, tmp_path / "keys" / "data-hash.key"):
        assert file.stat().st_mode & 0o077 == 0
    assert len(data_key(tmp_path / "keys")) == 64
    assert all(len(each["data"]) == 64 for each in json.loads(record.read_text())["patients"])


def test_a_damaged_record_stops_the_round(note, tmp_path: Path) -> None:
    note(patients())
    (record,) = (tmp_path / "trained").iterdir()
    record.write_text("{")
    with pytest.raises(FederationError, match="cannot be read"):
        note(patients(), 2)
    assert note(replace(patients()), 1, "another")
