import os
import signal
import stat
import time
from pathlib import Path

import pytest

from common.files import locked, open_atomic, write_atomic, write_secret


def test_it_is_whole_and_readable_as_any_other_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    (tmp_path / "plain").write_bytes(b"")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert os.listdir(path.parent) == ["file"]


def test_a_failure_keeps_the_old_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as error:
        write_atomic(path, b"new")
    assert error.value.filename == str(path)  # which the system does not say of a write
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_made_beside_a_file_is_told_by_the_files_own_name(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 240)  # the name beside it is longer than any file's may be
    with pytest.raises(OSError, match="too long") as error:
        write_atomic(path, b"new")
    assert error.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as other, open_atomic(tmp_path / "file"):
        (tmp_path / "source").read_bytes()
    assert other.value.filename == str(tmp_path / "source")


def test_a_secret_is_its_owners_and_never_replaces_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    write_secret(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_secret(path, b"two")
    assert path.read_bytes() == b"one"

    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_links)
        with pytest.raises(FileExistsError):
            write_secret(path, b"two")
        write_secret(tmp_path / "stick", b"three")
    assert (path.read_bytes(), (tmp_path / "stick").read_bytes()) == (b"one", b"three")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_secret(tmp_path / "other", b"four")
    assert sorted(os.listdir(tmp_path)) == ["key", "stick"]


def test_a_secret_takes_the_place_of_another_where_it_may(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"one, open to all")
    write_secret(path, b"two", replace=True)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o600)
    assert os.listdir(tmp_path) == ["key"]


def test_a_lock_is_held_against_others_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    with locked(path) as file:
        file.write(b"mine")
        for shared in (False, True):
            with pytest.raises(BlockingIOError):
                locked(path, wait=False, shared=shared)
    with locked(path, wait=False, shared=True) as one, locked(path, wait=False, shared=True):
        assert one.read() == b"mine"
        with pytest.raises(BlockingIOError):
            locked(path, wait=False)
    locked(path, wait=False).close()


def test_a_lock_waits_and_dies_with_its_process(tmp_path: Path) -> None:
    path, (told, tell) = tmp_path / "lock", os.pipe()
    child = os.fork()
    if not child:
        file = locked(path)
        os.write(tell, b"held")
        time.sleep(60)
        file.close()
        os._exit(0)
    assert os.read(told, 4) == b"held"
    with pytest.raises(BlockingIOError):
        locked(path, wait=False)
    os.kill(child, signal.SIGKILL)
    locked(path).close()  # comes as soon as the child is gone
    os.waitpid(child, 0)
