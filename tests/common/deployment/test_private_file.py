"""Files that others may read are refused, by a command that mends it as it is printed."""

import shlex
import subprocess
from pathlib import Path

import pytest

from common.deployment.private_file import require_private
from common.errors import ConfigError


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_what_it_says_to_run_mends_it_in_folders_with_blanks_too(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "our home" / "a token"
    file.parent.mkdir()
    file.touch(mode)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"other users may act by it .mode {mode:04o}") as refused:
        require_private(file, "act by it")
    subprocess.run(shlex.split(str(refused.value).partition("Run: ")[2]), check=True)
    require_private(file, "act by it")
