"""The slice cache: content-keyed, whole or not there, built once."""

import errno
import os
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import common.data.cache as module
from common.config.run import RunConfig
from common.config.sections import DataConfig
from common.data.cache import content_key, default_cache, open_site
from common.data.cases import read_site
from common.data.gate.finding import Finding, Level
from common.data.slices import prepare_case
from common.errors import DataError
from common.tasks.classification import Classification

PATIENTS = {"sub-1": ["t1", "flair", "mask"], "sub-2": ["t1c"], "sub-3": ["t1", "t1c", "t2", "flair"]}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def site(write_site, run):
    return read_site(write_site("bonn", PATIENTS, {"sub-1": "b", "sub-3": "a"}), run)


@pytest.fixture
def builds(monkeypatch) -> list[str]:
    """The ids of the patients that were prepared, in order."""
    seen: list[str] = []

    def prepare(case, data):
        seen.append(case.id)
        return prepare_case(case, data)

    monkeypatch.setattr(module, "prepare_case", prepare)
    return seen


def listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in folder.rglob("*"))


def test_a_site_is_built_once(site, small, cache: Path, builds: list[str]) -> None:
    before, steps = listing(site.root), []
    data = open_site(site, small, cache, workers=1, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert (data.name, data.ids, data.labels.tolist()) == ("bonn", ("sub-1", "sub-2", "sub-3"), [1, -1, 0])
    assert data.present.tolist() == [[True, False, False, True], [False, True, False, False], [True] * 4]
    assert isinstance(data.images, np.memmap)
    assert not data.images.flags.writeable
    for row, case in enumerate(site.cases):
        np.testing.assert_array_equal(data.images[row], prepare_case(case, small)[0])
    assert not data.images[0, :, 1].any()
    again = open_site(site, small, cache)
    assert builds == ["sub-1", "sub-2", "sub-3"]
    np.testing.assert_array_equal(again.images, data.images)
    assert again.key == data.key == content_key(site, small)
    assert listing(site.root) == before


def test_labels_are_read_fresh(site, small, run, cache: Path, builds: list[str]) -> None:
    open_site(site, small, cache, workers=1)
    (site.root / "participants.tsv").write_text("participant_id\tsubtype\nsub-2\tb\n")
    assert open_site(read_site(site.root, run), small, cache).labels.tolist() == [-1, 1, -1]
    assert len(builds) == 3


def test_the_key_is_the_content(site, small, run, tmp_path: Path) -> None:
    key = content_key(site, small)
    moved = tmp_path / "moved"
    os.rename(site.root, moved)
    there = read_site(moved, run)
    assert content_key(there, small) == key
    again = read_site(moved, replace(run, task=Classification(("x", "y"), "z")))
    assert content_key(again, small) == key  # another question, the same images
    assert content_key(there, replace(small, size=17)) != key
    assert content_key(there, replace(small, modalities=small.modalities[::-1])) != key
    file = there.cases[0].files["t1"]
    file.write_bytes(file.read_bytes() + b"\0")
    assert content_key(there, small) == key  # a case has read its files once
    assert content_key(read_site(moved, run), small) != key


@pytest.mark.parametrize("name", ["images.npy", "index.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone", "other"])
def test_a_damaged_cache_is_built_anew(site, small, cache: Path, builds: list[str], name: str, harm: str) -> None:
    data = open_site(site, small, cache, workers=1)
    truth, file = np.array(data.images), cache / data.key / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    harms = {"flip": bytes(content), "cut": bytes(content[:-9]), "empty": b"", "other": b'{"present": 3, "sha256": "x"}'}
    file.unlink()
    if harm in harms:
        file.write_bytes(harms[harm])
    np.testing.assert_array_equal(open_site(site, small, cache, workers=1).images, truth)
    assert len(builds) == 6


def test_an_interrupted_build_leaves_nothing_usable(site, small, cache: Path, builds: list[str]) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_site(site, small, cache, workers=1, progress=interrupt)
    assert [f.name for f in cache.iterdir()] == [f".{content_key(site, small)}.lock"]
    assert len(open_site(site, small, cache, workers=1)) == 3
    assert len(builds) == 5


def test_what_a_killed_build_left_is_cleared(site, small, cache: Path) -> None:
    partial = cache / f".{content_key(site, small)}.partial"
    partial.mkdir(parents=True)
    (partial / "images.npy").write_bytes(b"half")
    assert len(open_site(site, small, cache, workers=1)) == 3
    assert not partial.exists()


def test_two_at_once_build_once(site, small, cache: Path, builds: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_site(site, small, cache, workers=1), range(4)))
    assert len(builds) == 3
    for data in opened:
        np.testing.assert_array_equal(data.images, opened[0].images)


def test_worker_processes_give_the_same(site, small, cache: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    data = open_site(site, small, cache, workers=2, progress=lambda done, _: steps.append(done))
    assert steps == [1, 2, 3]
    np.testing.assert_array_equal(data.images, open_site(site, small, tmp_path / "other", workers=1).images)


def test_killed_workers_are_made_up_for(site, small, cache: Path, monkeypatch) -> None:
    class KilledPool:
        def __init__(self, *_, **__) -> None:
            self.given = 0

        def submit(self, work, *arguments):
            future: Future = Future()
            self.given += 1
            if self.given == 1:
                future.set_result(work(*arguments))
            else:
                future.set_exception(BrokenProcessPool("killed"))
            return future

        def shutdown(self, **_) -> None:
            pass

    monkeypatch.setattr(module, "ProcessPoolExecutor", KilledPool)
    data = open_site(site, small, cache, workers=2)
    for row, case in enumerate(site.cases):
        np.testing.assert_array_equal(data.images[row], prepare_case(case, small)[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_patients_stay_out_and_the_others_train(site, small, cache: Path, workers: int, monkeypatch, caplog) -> None:
    monkeypatch.setattr(module, "_said", set())
    file = site.cases[0].files["flair"]
    file.write_bytes(file.read_bytes()[:-100])
    data = open_site(site, small, cache, workers=workers)
    assert (data.ids, data.labels.tolist()) == (("sub-2", "sub-3"), [-1, 0])
    assert data.present.tolist() == [[False, True, False, False], [True] * 4]
    assert data.images.shape == (2, 2, 4, 16, 16)
    assert isinstance(data.images, np.memmap)
    for row, case in enumerate(site.cases[1:]):
        np.testing.assert_array_equal(data.images[row], prepare_case(case, small)[0])
    assert [(one.patient, one.file, one.code) for one in data.findings] == [
        ("sub-1", "sub-1/anat/sub-1_FLAIR.nii.gz", "file-truncated")
    ]
    assert [record.getMessage() for record in caplog.records] == [
        f"Site bonn: {data.findings[0]}",
        "Site bonn: 2 of 3 patients are used; the others stay out.",
    ]


def test_a_warm_start_repeats_what_was_found(site, small, cache: Path, builds: list[str], monkeypatch, caplog) -> None:
    file = site.cases[2].files["t2"]
    file.write_bytes(b"")
    monkeypatch.setattr(module, "_said", set())
    first = open_site(site, small, cache, workers=1)
    said = [record.getMessage() for record in caplog.records]
    assert open_site(site, small, cache).findings == first.findings
    assert [record.getMessage() for record in caplog.records] == said  # once a process
    monkeypatch.setattr(module, "_said", set())  # as a new process
    caplog.clear()
    again = open_site(site, small, cache)
    assert (again.ids, again.findings) == (first.ids, first.findings)
    assert [record.getMessage() for record in caplog.records] == said
    assert len(builds) == 3


def test_who_is_out_by_the_table_stays_out(site, small, cache: Path) -> None:
    twice = Finding("sub-1", "table-contradiction", Level.ERROR, "participants.tsv", "two rows", "one", "Keep one.")
    data = open_site(replace(site, findings=(twice,)), small, cache, workers=1)
    assert data.ids == ("sub-2", "sub-3")
    assert data.findings == (twice,)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_site_without_anybody_left_is_refused(site, small, cache: Path, workers: int) -> None:
    for case in site.cases:
        for file in case.files.values():
            file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError) as caught:
        open_site(site, small, cache, workers=workers)
    assert "Patient sub-2, sub-2/anat/sub-2_ce-gadolinium_T1w.nii.gz: " in str(caught.value)
    assert "sub-" not in caught.value.public
    assert not (cache / content_key(site, small)).exists()


def test_a_patient_without_the_runs_modalities_stays_out(site, small, cache: Path) -> None:
    data = open_site(site, replace(small, modalities=("t1", "flair")), cache, workers=1)
    assert data.ids == ("sub-1", "sub-3")
    assert [(one.patient, one.code) for one in data.findings] == [("sub-2", "no-modality-of-the-run")]


def test_a_cache_that_cannot_be_written(site, small, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="FEDMRI_CACHE"):
        open_site(site, small, tmp_path / "file" / "cache", workers=1)


def test_a_source_that_vanished_and_came_back(site, small, cache: Path) -> None:
    file = site.cases[1].files["t1c"]
    content = file.read_bytes()
    file.unlink()
    data = open_site(site, small, cache)
    assert data.ids == ("sub-1", "sub-3")
    assert [(one.patient, one.code) for one in data.findings] == [("sub-2", "file-unreadable")]
    file.write_bytes(content)
    assert open_site(site, small, cache).ids == ("sub-1", "sub-2", "sub-3")


def test_where_the_cache_lies(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDMRI_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("FEDMRI_CACHE")
    assert default_cache() == Path.home() / ".cache" / "fedmri"


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "counts"), [("fg", [4, 4, 6]), ("ez", [0, 0, 1])])
def test_real_hospitals_open(real_data: Path, cache: Path, name: str, counts: list[int]) -> None:
    config = RunConfig(data=DataConfig(size=64))
    site = read_site(real_data / "tcga-lgg" / name, config)
    before = listing(site.root)
    data = open_site(site, config.data, cache, workers=1)
    assert data.images.shape == (sum(counts), 5, 4, 64, 64)
    assert np.bincount(data.labels, minlength=3).tolist() == counts
    assert not data.present[:, 2].any()
    for row, present in enumerate(data.present):
        assert data.images[row].any(axis=(0, 2, 3)).tolist() == present.tolist()
    assert listing(site.root) == before


@pytest.mark.parametrize("patients", [PATIENTS, {**PATIENTS, "sub-4": ["mask"]}])
def test_where_the_disk_has_no_room_for_all_slices_it_says_so_and_leaves_nothing(
    write_site, run, small, cache, monkeypatch, patients
):
    """As on a disk with room for the file's head alone, where a page that cannot be written would end the process by a signal."""

    def no_room(descriptor: int, offset: int, length: int) -> None:
        assert (offset, length) == (0, os.fstat(descriptor).st_size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    site = read_site(write_site("bonn", patients, {"sub-1": "b", "sub-3": "a"}), run)
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(DataError, match=r"No space left on device.*Make room") as full:
        open_site(site, small, cache, workers=1)
    assert full.value.public == module.NO_CACHE
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    monkeypatch.undo()
    assert len(open_site(site, small, cache, workers=1).ids) == 3
