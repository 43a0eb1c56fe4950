"""The bundle is what `flwr run` ships: the same code gives the same bytes, other code others, and no patient is in it."""

import io
import zipfile
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.messages.code_version import PACKAGES
from server.deployment.bundle import CHECKOUT, build_bundle


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A small app of the same kind."""
    for package in PACKAGES:
        (tmp_path / "fedmri" / package / "inner").mkdir(parents=True)
        (tmp_path / "fedmri" / package / "app.py").write_text(f"app = '{package}'\n")
        (tmp_path / "fedmri" / package / "inner" / "x.py").write_text("")
    (tmp_path / "fedmri" / "configs").mkdir()
    (tmp_path / "fedmri" / "configs" / "demo.toml").write_text("")
    (tmp_path / "fedmri" / "pyproject.toml").write_text((CHECKOUT / "pyproject.toml").read_text())
    return tmp_path / "fedmri"


def test_twice_the_same_and_another_line_another_hash(checkout) -> None:
    first = build_bundle(checkout)
    assert build_bundle(checkout) == first
    assert len(first.sha256) == 64
    (checkout / "data").mkdir()
    (checkout / "data" / "patients.json").write_text("{}")
    (checkout / "secret.key").write_text("x")
    assert build_bundle(checkout) == first
    (checkout / "client" / "app.py").write_text("app = 'other'\n")
    assert build_bundle(checkout).sha256 != first.sha256


def test_this_checkouts_bundle_holds_code_and_configurations_only() -> None:
    first = build_bundle()
    assert build_bundle() == first
    names = zipfile.ZipFile(io.BytesIO(first.content)).namelist()
    assert {"pyproject.toml", "client/app.py", "server/app.py", "common/messages/round.py", "configs/demo.toml"} <= set(names)
    assert {Path(name).suffix for name in names} <= {".py", ".toml", ""}


def test_a_folder_that_is_no_app_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no bundle can be built"):
        build_bundle(tmp_path)
