"""Bundles are real zip archives: approved by their hash, kept to be read when they are not."""

import hashlib
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.gate import approvals as approved
from client.gate.approvals import LIST_NAME, approve, check_hash, compare, require_approved, unpack, withdraw
from common.errors import ConfigError, PolicyError

ROOT = Path(__file__).resolve().parents[3]


def archive(files: dict[str, str]) -> bytes:
    memory = BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        for name, text in files.items():
            file.writestr(name, text)
    return memory.getvalue()


def test_a_bundle_runs_after_its_hash_is_approved_and_not_after_it_is_withdrawn(tmp_path) -> None:
    bundle = archive({"client/app.py": "app = 1"})
    sha256 = hashlib.sha256(bundle).hexdigest()
    with pytest.raises(PolicyError, match="fedmri-site approve") as refused:
        require_approved(tmp_path, tmp_path / "state", bundle)
    assert refused.value.public == f"the site has not approved the bundle {sha256[:12]}"
    assert (tmp_path / "state" / "refused" / f"{sha256}.fab").read_bytes() == bundle
    assert approve(tmp_path, sha256, "read on a Monday")
    assert not approve(tmp_path, sha256)
    assert require_approved(tmp_path, tmp_path / "state", bundle) == sha256
    assert "read on a Monday" in (tmp_path / LIST_NAME).read_text()
    with pytest.raises(PolicyError):
        require_approved(tmp_path, tmp_path / "state", bundle + b"x")
    assert withdraw(tmp_path, sha256)
    assert not withdraw(tmp_path, sha256)
    with pytest.raises(PolicyError):
        require_approved(tmp_path, tmp_path / "state", bundle)


def test_a_hash_that_begins_alike_is_another(tmp_path) -> None:
    approve(tmp_path, "a" * 64)
    approve(tmp_path, "a" * 63 + "b")
    withdraw(tmp_path, "a" * 64)
    assert list(approved.approved(tmp_path)) == ["a" * 63 + "b"]


def test_only_the_newest_refused_bundles_are_kept(tmp_path) -> None:
    for number in range(approved.KEPT + 3):
        with pytest.raises(PolicyError):
            require_approved(tmp_path, tmp_path, f"bundle {number}".encode())
    assert len(list((tmp_path / "refused").iterdir())) == approved.KEPT


@pytest.mark.parametrize("name", ["../outside.py", "/outside.py", "a/../../outside.py"])
def test_a_name_that_leads_out_is_refused_and_nothing_written(tmp_path, name) -> None:
    with pytest.raises(PolicyError, match="no usable archive"):
        unpack(archive({"good.py": "", name: "bad"}), tmp_path / "b" / "x")
    assert list((tmp_path / "b").iterdir()) == []


def test_unpacking_is_whole_or_not_at_all(tmp_path) -> None:
    unpack(archive({"client/app.py": "1"}), tmp_path / "b" / "x")
    assert (tmp_path / "b" / "x" / "client" / "app.py").read_text() == "1"
    unpack(b"not looked at again", tmp_path / "b" / "x")
    with pytest.raises(PolicyError):
        unpack(b"PK garbage", tmp_path / "b" / "y")
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["x"]


def test_what_differs_from_the_installed_code_is_named() -> None:
    files = {"common/errors.py": (ROOT / "common" / "errors.py").read_text(), "client/app.py": "evil", "client/extra.py": "1"}
    found = compare(archive({**files, ".info/CONTENT": ""}), ROOT)
    assert (found.same, found.different, found.new) == (("common/errors.py",), ("client/app.py",), ("client/extra.py",))


def test_a_damaged_list_is_said_not_guessed(tmp_path) -> None:
    (tmp_path / LIST_NAME).write_text("# fine\n\nabc  2026-01-01\n")
    with pytest.raises(ConfigError, match="line 3"):
        approved.approved(tmp_path)


@given(st.text(max_size=80))
def test_only_a_sha256_is_a_hash(text) -> None:
    good = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    try:
        assert check_hash(text, "here") == text
        assert good
    except ConfigError:
        assert not good
