"""Files of folders and archives: all of them, and nothing outside."""

import zipfile
from pathlib import Path

import pytest

from client.data.dicom import sources
from client.data.dicom.header import read_header
from client.data.dicom.sources import SourceFile, find_files
from common.errors import DataError


def found(source: Path, scratch: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    scratch.mkdir(exist_ok=True)
    problems: dict[str, str] = {}
    files = {file.name: file.path.read_bytes() for file in find_files(source, scratch, problems.__setitem__)}
    return files, problems


def test_archives_in_archives_and_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr("IMG/0002", b"two")
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a" / "0001").write_bytes(b"one")
    with zipfile.ZipFile(source / "cd.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "x/inner.zip")
        archive.writestr("DICOMDIR", b"index")
    files, problems = found(source, tmp_path / "scratch")
    assert files == {"a/0001": b"one", "cd.zip!DICOMDIR": b"index", "cd.zip!x/inner.zip!IMG/0002": b"two"}
    assert problems == {}


def test_no_name_in_an_archive_becomes_a_path(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../escaped", b"x")
        archive.writestr("/absolute", b"y")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    before = set(tmp_path.rglob("*"))
    files, problems = found(tmp_path / "evil.zip", tmp_path / "scratch")
    assert sorted(files.values()) == [b"x", b"y"]
    assert list(problems) == ["evil.zip!link"]
    assert all(path.is_relative_to(tmp_path / "scratch") for path in set(tmp_path.rglob("*")) - before)


def test_an_archive_that_unpacks_to_too_much_is_stopped(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "MAX_MEMBER", 3 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(9 << 20))
        archive.writestr("good", b"good")
    files, problems = found(tmp_path / "bomb.zip", tmp_path / "scratch")
    assert list(files) == ["bomb.zip!good"]
    assert "unpacks to more" in problems["bomb.zip!bomb"]
    assert sum(path.stat().st_size for path in (tmp_path / "scratch").iterdir()) < 10


def test_a_damaged_archive_is_said(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cd.zip", "w") as archive:
        archive.writestr("one", b"1" * 1000)
    content = bytearray((tmp_path / "cd.zip").read_bytes())
    content[100:110] = b"damaged..."
    (tmp_path / "cd.zip").write_bytes(content)
    files, problems = found(tmp_path / "cd.zip", tmp_path / "scratch")
    assert not files
    assert "cannot be unpacked" in problems["cd.zip!one"]


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "0001").write_bytes(b"one")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "source")
    (tmp_path / "source" / "nothing").symlink_to(tmp_path / "absent")
    files, problems = found(tmp_path / "source", tmp_path / "scratch")
    assert files == {"link/0001": b"one"}
    assert list(problems) == ["nothing"]


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        found(tmp_path / "absent", tmp_path / "scratch")


START = bytes(128) + b"DICM"


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x00nonsense" * 20, START, START + b"\xff" * 99])
def test_what_is_no_dicom_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="DICOM"):
        read_header(SourceFile(tmp_path / "file", "file"))
