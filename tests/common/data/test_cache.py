"""The slice cache: content-keyed, whole or not there, built once."""

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
    assert content_key(there, small) != key


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
def test_all_bad_patients_are_named_and_nothing_is_kept(site, small, cache: Path, workers: int) -> None:
    for case, modality in ((site.cases[0], "flair"), (site.cases[2], "t2")):
        file = case.files[modality]
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError) as caught:
        open_site(site, small, cache, workers=workers)
    text = str(caught.value)
    assert text.startswith("Site bonn: Patient sub-1, sub-1/anat/sub-1_FLAIR.nii.gz: truncated or damaged")
    assert "Patient sub-3, sub-3/anat/sub-3_T2w.nii.gz" in text
    assert "sub-2" not in text
    assert "sub-" not in caught.value.public
    assert not (cache / content_key(site, small)).exists()


def test_a_patient_without_the_runs_modalities(site, small, cache: Path) -> None:
    with pytest.raises(DataError, match="Patient sub-2: none of t1, flair; it has t1c"):
        open_site(site, replace(small, modalities=("t1", "flair")), cache, workers=1)


def test_a_cache_that_cannot_be_written(site, small, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="FEDMRI_CACHE"):
        open_site(site, small, tmp_path / "file" / "cache", workers=1)


def test_a_source_that_vanished(site, small, cache: Path) -> None:
    site.cases[1].files["t1c"].unlink()
    with pytest.raises(DataError, match=r"Patient sub-2, .*T1w.nii.gz: cannot be read"):
        open_site(site, small, cache)


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
