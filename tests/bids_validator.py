"""The BIDS validator, another program, on what is written here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def bids_issues(site: Path) -> list[dict[str, Any]]:
    """What bids-validator-deno says of a site's folder and of its derivatives, which it must both have read."""
    validator = shutil.which("bids-validator-deno", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not validator:
        pytest.skip("no bids-validator-deno here: python -m pip install -c constraints.txt -e '.[dev]'")
    done = subprocess.run([validator, "-r", "--format", "json", str(site)], capture_output=True, check=False)
    assert done.stdout, f"the validator ended with {done.returncode}: {done.stderr.decode()}"
    found = json.loads(done.stdout)
    parts = [found, *found["derivativesSummary"].values()]
    assert len(parts) == 2
    issues = [issue for part in parts for issue in part["issues"]["issues"]]
    assert issues  # it looked: there are always fields that it recommends
    return issues
