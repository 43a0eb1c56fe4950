import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from common.messages.code_version import TRAVELS, code_hash, travelling, tree_hash

CHECKOUT = Path(__file__).resolve().parents[3]
ROOMS = ("client", "common", "server")


def test_the_code_hash_sees_names_and_contents_of_what_travels(tmp_path):
    for name in ("common/errors.py", "client/round/a.py", "server/run/a.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x = 1\n")
    first = tree_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("of no matter")
    for name in ("simulation/a.py", "client/doctor/a.py", "server/report/page/a.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("of no matter to the sites")
    assert travelling(tmp_path) == ["client/round/a.py", "common/errors.py", "server/run/a.py"]
    assert tree_hash(tmp_path) == first
    (tmp_path / "client" / "round" / "a.py").write_text("x = 2\n")
    changed = tree_hash(tmp_path)
    (tmp_path / "client" / "round" / "a.py").rename(tmp_path / "client" / "round" / "b.py")
    assert len({first, changed, tree_hash(tmp_path)}) == 3
    assert len(code_hash()) == 64


def test_whatever_a_travelling_file_imports_of_ours_travels_too() -> None:
    """A module that stays behind ends every run with Flower's "No module named ..."."""
    files = travelling(CHECKOUT)
    behind = {(file, name) for file in files for name in _ours(CHECKOUT / file) if _file(name) and _file(name) not in files}
    assert not behind


def test_the_bundle_and_the_code_hash_name_the_same_files() -> None:
    listed = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["fab-include"]
    assert {pattern for pattern in listed if not pattern.startswith("configs/")} >= set(TRAVELS)


def _ours(file: Path) -> Iterator[str]:
    """Modules of this project that a file imports, wherever it does, type checking excepted."""
    for node in ast.walk(_running(ast.parse(file.read_text()))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def _running(tree: ast.Module) -> ast.Module:
    class Without(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | None:
            named = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if named else self.generic_visit(node)

    return Without().visit(tree)  # type: ignore[no-any-return]


def _file(module: str) -> str:
    """Relative path of a module's file; "" where the name is not a module but something in one."""
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if (CHECKOUT / name).is_file()), "")
