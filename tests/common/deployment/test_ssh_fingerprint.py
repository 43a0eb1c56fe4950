"""The fingerprint that `ssh-keygen` shows."""

import shutil
import subprocess
from pathlib import Path

import pytest

from common.deployment.ssh_fingerprint import ssh_fingerprint


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")
def test_it_is_that_of_ssh_keygen(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", "bonn", "-f", tmp_path / "key"], check=True)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], capture_output=True, text=True, check=True).stdout
    assert ssh_fingerprint((tmp_path / "key.pub").read_text()) == shown.split()[1]
