"""The bundle is what `flwr run` ships: the same code gives the same bytes, other code others, and no patient is in it."""

from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from common.errors import ConfigError
from common.messages.code_version import TRAVELS
from server.deployment.bundle import CHECKOUT, build_bundle


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A small app of the same kind."""
    for pattern in (*TRAVELS, "configs/*.toml"):
        file = tmp_path / "fedmri" / pattern.replace("**/", "").replace("*", "x")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    for side in ("client", "server"):
        (tmp_path / "fedmri" / side / "app.py").write_text(f"app = '{side}'\n")
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


def test_it_is_what_flower_packs_of_the_same_folder(checkout) -> None:
    for name in (".venv/common/x.py", ".ci/common/x.py", "data/patients.json", "common/.hidden/x.py", "common/messages/y.py"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("x = 1\n")
    (checkout / ".gitignore").write_text("common/messages/y.py\n")
    (checkout / "common" / "link.py").symlink_to(checkout / ".venv" / "common" / "x.py")
    assert build_bundle(checkout).content == build_fab_from_disk(checkout)
    (checkout / ".gitignore").write_text("")
    assert build_bundle(checkout).content == build_fab_from_disk(checkout)


def test_a_folder_that_is_no_app_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no bundle can be built"):
        build_bundle(tmp_path)
