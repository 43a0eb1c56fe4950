"""A site's own files go into one archive and come back together, or not at all."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from client.cli.main import main
from client.deployment.archive import MANIFEST, backup, restore
from client.deployment.home import SiteHome, open_home
from client.gate import audit_log
from client.gate.ledger_watch import note_grown
from client.privacy.ledger import alone, append, read_ledger
from common.config.site import SiteConnection, SitePrivacy
from common.errors import ConfigError, FederationError, FedMRIError, PrivacyError
from common.privacy.charge import Charge
from tests.client.deployment.tls import Authority

LEDGER = SitePrivacy().ledger


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    """A hospital that has trained privately twice, with patients beside it."""
    ca = Authority.make(tmp_path).file
    folder = tmp_path / "hospital"
    assert main(["init", str(folder), "--server", "localhost:8443", "--ca", str(ca)]) == 0
    (folder / "sub-1" / "anat").mkdir(parents=True)
    (folder / "sub-1" / "anat" / "sub-1_T1w.nii.gz").write_bytes(b"voxels")
    for name in ("twins", "trained"):
        (folder / name).mkdir()
        (folder / name / "r.json").write_text("{}")
    (folder / "twins" / "r.npz").write_bytes(b"fingerprints")
    (folder / "personal" / "r").mkdir(parents=True)
    for number in (9, 10):
        (folder / "personal" / "r" / f"round-{number:04d}.safetensors").write_bytes(b"own arrays")
    (folder / "bundles.txt").write_text("")
    for run in ("r1", "r2"):
        charge(folder, run)
    return open_home(folder)


def charge(folder: Path, run: str) -> str:
    path, log = folder / LEDGER, folder / SiteConnection().state / audit_log.LOG_NAME
    with alone(path):
        ledger = read_ledger(path)
        append(path, ledger, Charge(5.0, 0.1, 10), (ledger.mark("id:1"),), run)
    note_grown(log, read_ledger(path))
    return audit_log.verify(log).head


def test_what_belongs_together_comes_back_together_and_no_patient_is_in_it(home, tmp_path: Path, capsys) -> None:
    archive = tmp_path / "site.tar"
    assert main(["backup", str(home.folder), str(archive)]) == 0
    assert archive.stat().st_mode & 0o077 == 0
    assert b"voxels" not in archive.read_bytes()
    assert main(["restore", str(archive), str(tmp_path / "new")]) == 0
    assert "must not run this site any more" in capsys.readouterr().out
    new = open_home(tmp_path / "new")
    names = ["site.toml", "ca.crt", "keys/site", "keys/site.pub", LEDGER, "bundles.txt", "twins/r.json", "trained/r.json"]
    names += ["twins/r.npz", "personal/r/round-0010.safetensors"]
    for name in names:
        assert (new.folder / name).read_bytes() == (home.folder / name).read_bytes()
    assert new.key.stat().st_mode & 0o077 == 0
    ledger = read_ledger(new.folder / LEDGER, new.key.parent)
    assert [entry.run for entry in ledger.entries] == ["r1", "r2"]
    assert ledger.mark("id:1") == read_ledger(home.folder / LEDGER).mark("id:1")  # the salt has come, too
    assert audit_log.verify(new.state / audit_log.LOG_NAME).events == {"ledger": 2, "restored": 1}
    assert main(["backup", str(home.folder), str(archive)]) == 2  # nothing is overwritten
    assert main(["restore", str(archive), str(tmp_path / "new")]) == 2
    assert audit_log.verify(home.state / audit_log.LOG_NAME).lines == 2


def rewritten(archive: Path, name: str, content: bytes, to: Path, *, honest: bool) -> Path:
    """The archive with another file in it; `honest`: its manifest says so."""
    import hashlib

    with tarfile.open(archive) as old, tarfile.open(to, "w") as new:
        for member in old.getmembers():
            file = old.extractfile(member)
            assert file
            data = content if member.name == name else file.read()
            if member.name == MANIFEST and honest:
                table = json.loads(data)
                table["files"][name] = hashlib.sha256(content).hexdigest()
                data = json.dumps(table).encode()
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return to


def test_a_ledger_that_the_log_contradicts_does_not_come_back(home, tmp_path: Path) -> None:
    old = (home.folder / LEDGER).read_bytes()
    charge(home.folder, "r3")
    backup(home, tmp_path / "site.tar")
    mixed = rewritten(tmp_path / "site.tar", LEDGER, old, tmp_path / "mixed.tar", honest=True)
    with pytest.raises(PrivacyError, match="lacks charges that were written"):
        restore(mixed, tmp_path / "new")
    cut = rewritten(tmp_path / "site.tar", f"state/{audit_log.LOG_NAME}", b"", tmp_path / "cut.tar", honest=True)
    with pytest.raises(ConfigError, match="another end of its audit log"):
        restore(cut, tmp_path / "new")
    for damaged in (rewritten(tmp_path / "site.tar", LEDGER, old, tmp_path / "d.tar", honest=False), tmp_path / "none.tar"):
        with pytest.raises(ConfigError):
            restore(damaged, tmp_path / "new")
    assert not list(tmp_path.glob("*new*"))
    (home.folder / LEDGER).write_bytes(old)
    with pytest.raises(PrivacyError):
        backup(home, tmp_path / "again.tar")


def test_an_archive_older_than_the_head_that_was_noted_does_not_come_back(home, tmp_path: Path) -> None:
    noted = audit_log.verify(home.state / audit_log.LOG_NAME).head
    backup(home, tmp_path / "old.tar")
    later = charge(home.folder, "r3")
    with pytest.raises(ConfigError, match="older than the line"):
        restore(tmp_path / "old.tar", tmp_path / "new", head=later)
    restore(tmp_path / "old.tar", tmp_path / "new", head=noted)


def test_a_site_that_was_moved_does_not_start_where_it_was(home, tmp_path: Path, capsys) -> None:
    assert main(["move", str(home.folder), str(tmp_path / "site.tar")]) == 0
    assert main(["start", str(home.folder), "--background"]) == 1
    assert "was moved elsewhere" in capsys.readouterr().err
    assert main(["status", str(home.folder)]) == 1
    assert "was moved elsewhere" in " ".join(capsys.readouterr().out.split())
    restore(tmp_path / "site.tar", tmp_path / "new")
    new = open_home(tmp_path / "new")
    assert audit_log.verify(new.state / audit_log.LOG_NAME).events == {"ledger": 2, "moved": 1, "restored": 1}
    assert not (new.state / "moved.json").exists()


@pytest.mark.parametrize("name", ["../out", "/abs"])
def test_an_archive_writes_nowhere_else(tmp_path: Path, name: str) -> None:
    import hashlib

    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        said = {"site": "a", "made": "", "charges": 0, "lines": 0, "head": "", "files": {name: hashlib.sha256(b"x").hexdigest()}}
        for member, content in ((MANIFEST, json.dumps(said).encode()), (name, b"x")):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(ConfigError, match="not those that it was made of"):
        restore(tmp_path / "bad.tar", tmp_path / "new")


def test_a_file_outside_the_folder_is_said_not_left_out(home, tmp_path: Path) -> None:
    text = home.toml.read_text().replace('ca = "ca.crt"', f'ca = "{tmp_path / "elsewhere.crt"}"')
    (tmp_path / "elsewhere.crt").write_bytes(home.ca.read_bytes())
    home.toml.write_text(text)
    with pytest.raises(ConfigError, match="lies outside"):
        backup(open_home(home.folder), tmp_path / "site.tar")
    assert issubclass(FederationError, FedMRIError)
