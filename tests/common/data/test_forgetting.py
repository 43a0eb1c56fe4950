"""The cache forgets patients who are gone, and nobody else."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from common.data.cache import open_site
from common.data.cases import Site, read_site
from common.data.fingerprint import VERSION
from common.data.forgetting import entries, forget_gone

PATIENTS = {"sub-1": ["t1", "flair", "mask"], "sub-2": ["t1c"], "sub-3": ["t1"]}


@pytest.fixture
def site(write_site, run) -> Site:
    return read_site(write_site("bonn", PATIENTS, {"sub-1": "b", "sub-3": "a"}), run)


def names(cache: Path) -> set[str]:
    return {entry.path.name for entry in entries(cache)}


def test_an_entry_goes_when_a_file_of_its_was_replaced_and_not_before(site, small, run, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    whole = open_site(site, small, cache, workers=1).key
    part = open_site(site.only(["sub-1", "sub-3"]), small, cache, workers=1).key
    assert forget_gone(cache, site.root, site.cases, whole) == 0
    assert {entry.patients for entry in entries(cache)} == {2, 3}
    file = next((site.root / "sub-2").rglob("*.nii*"))
    other = next((site.root / "sub-3").rglob("*.nii*"))
    shutil.copy(other, file)  # sub-2's image is another one now
    now = read_site(site.root, run)
    new = open_site(now, small, cache, workers=1).key
    assert forget_gone(cache, now.root, now.cases, new) == 1
    assert names(cache) == {part, new}
    assert forget_gone(cache, now.root, now.cases, new) == 0


def test_who_is_excluded_is_forgotten_with_all_that_was_computed_of_them(site, small, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    open_site(site, small, cache, workers=1)
    (entry,) = entries(cache)
    for digest in entry.files:
        for file in (cache / "fingerprints" / f"{VERSION}-{digest}.npy", cache / "voxel-marks" / f"{digest}-1.json"):
            file.parent.mkdir(exist_ok=True)
            file.touch()
    (cache / "embeddings" / "x").mkdir(parents=True)
    rest = site.only(["sub-1", "sub-2"])
    kept = open_site(rest, small, cache, workers=1)
    assert forget_gone(cache, site.root, rest.cases, kept.key) == 1
    assert names(cache) == {kept.key}
    (left,) = entries(cache)
    assert {file.stem.split("-")[1] for file in (cache / "fingerprints").iterdir()} == left.files
    assert {file.stem.split("-")[0] for file in (cache / "voxel-marks").iterdir()} == left.files
    assert not (cache / "embeddings").exists()


def test_another_hospitals_entries_stay(site, small, tmp_path: Path, run, write_site) -> None:
    cache, other = tmp_path / "cache", read_site(write_site("cologne", {"sub-9": ["t2"]}, {}), run)
    mine, theirs = open_site(site, small, cache, workers=1).key, open_site(other, small, cache, workers=1).key
    assert forget_gone(cache, site.root, ()) == 1
    assert names(cache) == {theirs}
    assert mine not in names(cache)


def test_slices_know_their_sources(site, small, tmp_path: Path) -> None:
    data = open_site(site, small, tmp_path / "cache", workers=1)
    assert len(set(data.sources)) == len(data) == 3
    assert data.select([2, 0]).sources == (data.sources[2], data.sources[0])
    assert replace(data, sources=()).select([1]).sources == ()
