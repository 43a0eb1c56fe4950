"""What travels to hospitals is what the two Flower apps import, no more and no less: what a hospital must read and approve."""

import io
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import grimp
import pytest

from common.messages.code_version import TRAVELS, code_hash, travelling, tree_hash
from server.deployment.bundle import CHECKOUT, build_bundle

APPS = ("client.app", "server.app")


def closure() -> set[str]:
    """Source files that the apps can import, the `__init__` of each package on the way included, by import-linter's own graph."""
    graph = grimp.build_graph("client", "server", "common", exclude_type_checking_imports=True, cache_dir=None)
    modules = set(APPS).union(*(graph.find_upstream_modules(app) for app in APPS))
    packages = {module.rsplit(".", depth)[0] for module in modules for depth in range(1, module.count(".") + 1)}
    return {file_of(module) for module in modules | packages}


def file_of(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (CHECKOUT / path).is_dir() else f"{path}.py"


def bundled(checkout: Path = CHECKOUT) -> set[str]:
    """Names in the bundle, without Flower's own list of them."""
    names = zipfile.ZipFile(io.BytesIO(build_bundle(checkout).content)).namelist()
    return {name for name in names if not name.startswith(".info/")}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout's packages and configurations."""
    for part in ("client", "common", "configs", "server"):
        shutil.copytree(CHECKOUT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    return tmp_path


def test_what_travels_is_what_the_apps_import() -> None:
    listed, imported = set(travelling(CHECKOUT)), closure()
    lines = [f'    "{name}",' for name in sorted(imported - listed)]
    assert not lines, (
        "The apps import files that do not travel. Add these lines to TRAVELS (common/messages/code_version.py) and fab-include "
        "(pyproject.toml), or `ROOM/*.py` where a whole room travels:\n" + "\n".join(lines)
    )
    idle = sorted(listed - imported)
    assert not idle, (
        "Files travel that no app imports. Take their lines out of TRAVELS (common/messages/code_version.py) and fab-include "
        "(pyproject.toml), or name the room's other files in place of its glob:\n" + "\n".join(idle)
    )


def test_flower_is_told_the_same_list() -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert settings["tool"]["flwr"]["app"]["fab-include"] == [*TRAVELS, "configs/*.toml"]


@pytest.mark.slow
def test_the_bundle_is_the_closure_and_the_configurations() -> None:
    configurations = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "configs").glob("*.toml")}
    assert bundled() == closure() | configurations | {"pyproject.toml"}


@pytest.mark.slow
def test_an_unpacked_bundle_has_the_checkouts_hash_and_its_apps_load(tmp_path: Path) -> None:
    zipfile.ZipFile(io.BytesIO(build_bundle().content)).extractall(tmp_path)
    assert tree_hash(tmp_path) == tree_hash(CHECKOUT) == code_hash()
    said = "import sys; sys.path[:0] = [sys.argv[1]]; import client.app as c, server.app as s; print(c.__file__, s.__file__)"
    done = subprocess.run([sys.executable, "-c", said, tmp_path], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "client" / "app.py"), str(tmp_path / "server" / "app.py")]


@pytest.mark.parametrize(
    ("names", "travels"),
    [
        (("client/doctor/*.py", "client/cli/*.py", "server/cli/*.py", "server/release/*.py"), False),
        (("server/report/page/*.*", "server/report/publish.py", "client/predict/*.*", "client/gate/*.py"), False),
        (("client/round/train.py",), True),
        (("common/messages/code_version.py",), True),
        (("server/report/results.py",), True),
    ],
)
def test_a_comma_needs_a_new_approval_only_where_it_travels(checkout: Path, names: tuple[str, ...], travels: bool) -> None:
    before = build_bundle(checkout).sha256, tree_hash(checkout)
    changed = [path for pattern in names for path in checkout.glob(pattern) if path.is_file()]
    assert changed
    for path in changed:
        path.write_text(path.read_text() + "\n# ,\n")
    after = build_bundle(checkout).sha256, tree_hash(checkout)
    assert [one != other for one, other in zip(before, after, strict=True)] == [travels, travels]
