"""The walls between the rooms: who may import whom."""

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
ROOMS = {
    "common": {"common"},
    "client": {"client", "common"},
    "server": {"server", "common"},
    "simulation": {"simulation", "server", "client", "common"},
}


def imported_rooms(source: str) -> set[str]:
    """Our own top-level packages that a module imports, at any depth of its code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which room is meant"
            found.add((node.module or "").split(".")[0])
    return found & ROOMS.keys()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = sorted((CHECKOUT / room).rglob("*.py"))
    assert files
    wrong = {str(f.relative_to(CHECKOUT)): imported_rooms(f.read_text()) - ROOMS[room] for f in files}
    assert {name: rooms for name, rooms in wrong.items() if rooms} == {}


def test_a_forbidden_import_is_seen_wherever_it_stands() -> None:
    assert imported_rooms("def f():\n    from server.run.federate import federate\n") - ROOMS["client"] == {"server"}
    assert imported_rooms("import client.round.train as t") - ROOMS["server"] == {"client"}


@pytest.mark.parametrize("app", ["client/app.py", "server/app.py"])
def test_the_flower_apps_are_wiring_only(app: str) -> None:
    assert len((CHECKOUT / app).read_text().splitlines()) < 80
