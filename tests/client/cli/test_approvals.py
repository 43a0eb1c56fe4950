"""`fedmri-site approve` and `audit verify`, from the command line to the files."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from client.cli.main import main
from client.gate.approvals import approved
from client.gate.audit_log import LOG_NAME, record

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "site.toml").write_text("")
    (tmp_path / "state" / "refused").mkdir(parents=True)
    return tmp_path


def kept(home: Path) -> str:
    """A bundle that was refused."""
    path = home / "x.fab"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(ROOT / "common" / "errors.py", "common/errors.py")
        archive.writestr("client/app.py", "evil")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(home / "state" / "refused" / f"{sha256}.fab")
    return sha256


def test_a_refused_bundle_is_shown_beside_the_installed_code_and_approved(home, capsys) -> None:
    sha256 = kept(home)
    assert main(["approve", str(home)]) == 0
    assert f"refused   {sha256}" in capsys.readouterr().out
    assert main(["approve", str(home / "site.toml"), sha256, "--note", "read by Ada"]) == 0
    out = capsys.readouterr().out
    assert "1 files are the same as those installed here, 1 differ, 0 are new" in out
    assert "differs: client/app.py" in out
    assert "read by Ada" in approved(home)[sha256]
    assert main(["approve", str(home), sha256, "--withdraw", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["approved"] is False
    assert approved(home) == {}


def test_a_hash_that_is_not_here_is_written_down_and_said(home, capsys) -> None:
    assert main(["approve", str(home), "a" * 64]) == 0
    assert "The bundle itself is not here" in capsys.readouterr().out
    assert main(["approve", str(home), "abc"]) == 2
    assert "64 hexadecimal digits" in capsys.readouterr().err


def test_the_audit_log_is_verified(home, capsys) -> None:
    assert main(["audit", "verify", str(home)]) == 1
    assert "no such file" in capsys.readouterr().err
    head = record(home / "state" / LOG_NAME, "in", round=1)
    assert main(["audit", "verify", str(home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["head"] == head
    log = home / "state" / LOG_NAME
    log.write_text(log.read_text().replace("in", "on", 1))
    assert main(["audit", "verify", str(home)]) == 1
    assert "line 1: not as it was written" in capsys.readouterr().err


def test_what_changes_nothing_is_said(home, capsys) -> None:
    sha256, other = "a" * 64, "b" * 64
    assert main(["approve", str(home), sha256, "--note", "read by Ada"]) == 0
    capsys.readouterr()
    assert main(["approve", str(home), other, "--withdraw"]) == 0  # a slip: the approved one still runs
    assert f"was not approved: nothing is withdrawn. Approved: {sha256[:12]}." in " ".join(capsys.readouterr().out.split())
    assert main(["approve", str(home), sha256, "--note", "read by Bob"]) == 0
    assert "your note is not written down" in " ".join(capsys.readouterr().out.split())
    assert list(approved(home)) == [sha256]
    assert "Ada" in approved(home)[sha256]
