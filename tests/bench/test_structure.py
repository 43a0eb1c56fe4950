"""The figures of the import graph, on packages small enough to count by hand, and against every order tried in turn."""

import importlib.util
import itertools
import random
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def structure():
    spec = importlib.util.spec_from_file_location("structure", CHECKOUT / "bench" / "structure.py")
    module = sys.modules["structure"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["structure"]


def package(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / "pack" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root / "pack"


def test_boxes_floors_and_arrows_of_a_house_in_order(structure, tmp_path):
    files = {
        "__init__.py": "",
        "top.py": "from pack.room import one\nimport pack.base\n",
        "room/__init__.py": "",
        "room/one.py": "def f():\n    from pack.base import thing\n",
        "room/two.py": "import pack.base\nfrom pack import base\n",  # one arrow, however often
        "base.py": "import os\nthing = 1\n",
        "alone.py": "",
    }
    assert structure.draw(package(tmp_path, files)) == structure.Drawing(boxes=4, floors=3, arrows=3, upward=0, circles=0)


def test_a_circle_of_rooms_costs_an_upward_arrow_and_one_inside_a_room_none(structure, tmp_path):
    files = {
        "a.py": "import pack.b\nimport pack.c",
        "b.py": "import pack.c",
        "c.py": "import pack.a",
        "room/x.py": "import pack.room.y",
        "room/y.py": "import pack.room.x",
    }
    assert structure.draw(package(tmp_path, files)) == structure.Drawing(boxes=4, floors=3, arrows=4, upward=1, circles=2)


@pytest.mark.parametrize("seed", range(8))
def test_no_order_has_fewer_upward_arrows(structure, seed):
    chance = random.Random(seed)
    arrows = frozenset((a, b) for a in "abcdef" for b in "abcdef" if a != b and chance.random() < 0.4)
    found = structure.fewest_upward(arrows)
    fewest = min(sum(order.index(a) > order.index(b) for a, b in arrows) for order in itertools.permutations("abcdef"))
    assert len(found) == fewest
    assert structure.circles_of(arrows - found) == ()


def test_a_body_is_counted_without_its_docstring(structure):
    source = 'def f():\n    """Says.\n\n    More.\n    """\n    a = 1\n\n    return a\n\ndef g():\n    """Alone."""\n'
    assert list(structure.bodies_of(source)) == [("f", 3), ("g", 0)]
