"""What is known of files that were read before, and which of them are read again."""

import hashlib
import os
import time
from pathlib import Path

import pytest

import common.data.known_files as module
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.known_files import FOLDER, KnownFiles
from common.data.twins import patient_fingerprint

OLD = 10**9 * 10  # ns: beyond any clock's tick


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of the files whose content was hashed, in order."""
    seen: list[str] = []
    plain = module.content_sha256

    def note(file: Path) -> str:
        seen.append(file.name)
        return plain(file)

    for place in ("common.data.known_files", "common.data.cases", "common.data.cache"):
        monkeypatch.setattr(f"{place}.content_sha256", note)
    return seen


@pytest.fixture
def later(monkeypatch):
    """As if all files had lain there for a while: nobody can set a ctime."""
    clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: clock() + OLD)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, reads: list[str], later) -> None:
    file, root = tmp_path / "a.nii", tmp_path / "site"
    file.write_bytes(b"one")
    for _ in range(2):  # the second as in another process
        known = KnownFiles(tmp_path, root)
        assert known.sha256(file) == known.sha256(file) == sha256(b"one")
        known.keep()
    assert reads == ["a.nii"]
    times = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as some copying tools do; its size is the same, too
    assert KnownFiles(tmp_path, root).sha256(file) == sha256(b"two")
    other = tmp_path / "b.nii"
    other.write_bytes(b"new")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(other, file)  # another inode
    assert KnownFiles(tmp_path, root).sha256(file) == sha256(b"new")
    file.unlink()
    with pytest.raises(FileNotFoundError):
        known.sha256(file)


def test_what_has_just_changed_is_not_kept(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"one")
    known = KnownFiles(tmp_path, tmp_path)
    assert known.sha256(file) == known.sha256(file)
    known.keep()
    assert len(reads) == 2
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("content", [b"", b"[3]", b'{"x": 3}', b'{"x": [[1], "y", 2]}', b"\xff"])
def test_a_damaged_note_is_as_none(tmp_path: Path, later, content: bytes) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"one")
    known = KnownFiles(tmp_path, tmp_path)
    known.sha256(file)
    known.keep()
    [note] = (tmp_path / FOLDER).iterdir()
    note.write_bytes(content)
    assert KnownFiles(tmp_path, tmp_path).sha256(file) == sha256(b"one")


def test_a_site_is_hashed_once_for_the_cache_and_once_a_round_for_its_records(
    write_site, run, small, tmp_path: Path, reads: list[str], later
) -> None:
    root, cache = write_site("bonn", {"sub-1": ["t1", "mask"], "sub-2": ["t1c", "flair"]}), tmp_path / "cache"
    first = open_site(read_site(root, run), small, cache, workers=1)
    assert sorted(set(reads)) == sorted(reads)
    reads.clear()
    assert open_site(read_site(root, run), small, cache, workers=1).sources == first.sources
    assert reads == []
    site = read_site(root, run)
    assert open_site(site, small, cache, workers=1, read_all=True).sources == first.sources
    for case in site.cases:
        patient_fingerprint(case, cache)
    assert len(reads) == 5 == len(set(reads))  # three images, a mask and the slices
    with (cache / first.key / "images.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"\1\2\3")
    assert open_site(read_site(root, run), small, cache, workers=1).key == first.key
    assert "images.npy" in reads[5:]
