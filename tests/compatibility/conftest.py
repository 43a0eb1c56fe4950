"""What commit 2a60dec left on disks (`tests/fixtures/2a60dec`, made by the script there), as copies that a test may write to."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.cli.main import main as site_main
from server.cli.main import main as server_main

CHECKOUT = Path(__file__).resolve().parents[2]
OLD = CHECKOUT / "tests" / "fixtures" / "2a60dec"

Asked = Callable[..., Any]


@pytest.fixture
def old(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one of the folders."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(OLD / name, tmp_path / name))

    return copy


@pytest.fixture
def hospital(old: Callable[[str], Path]) -> Path:
    """The hospital's folder, its patients the external ones: they have the same ids, and ids are what its ledger knows."""
    folder = old("hospital")
    toml = folder / "site.toml"
    lines = toml.read_text().splitlines(keepends=True)
    toml.write_text("".join(f'data = "{OLD / "external"}"\n' if line.startswith("data = ") else line for line in lines))
    return folder


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str]) -> Asked:
    """A command with `--json`: what it prints, after its exit code was held to `code`."""

    def ask(program: str, *words: Any, code: int = 0) -> Any:
        main = {"fedmri-site": site_main, "fedmri-server": server_main}[program]
        capsys.readouterr()
        done = main([*map(str, words), "--json"])
        said = capsys.readouterr()
        assert done == code, said.err
        return json.loads(said.out)

    return ask


def told(name: str) -> Any:
    """What a command of that commit printed."""
    return json.loads((OLD / name).read_text())
