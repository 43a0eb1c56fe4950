"""A grid is read as it is declared, and what is wrong in it is refused by name."""

from pathlib import Path

import pytest

from common.errors import ConfigError
from simulation.sweep.grid import Arm, read_grid

GRID = """
seeds = [0, 1]

[[data]]
name = "phantoms"
folder = "hospitals"
folds = ["a", "b+c"]

[[arms]]
name = "base"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "grid.toml"
    file.write_text(text)
    return file


def test_the_product_follows_the_listed_arms_its_last_key_fastest(tmp_path: Path) -> None:
    product = '[product]\n"training.learning_rate" = [1e-4, 0.5]\n"evaluation.stage" = ["best", "last"]\n'
    grid = read_grid(write(tmp_path, GRID + product))
    combinations = [
        ("training.learning_rate=0.0001", 'evaluation.stage="best"'),
        ("training.learning_rate=0.0001", 'evaluation.stage="last"'),
        ("training.learning_rate=0.5", 'evaluation.stage="best"'),
        ("training.learning_rate=0.5", 'evaluation.stage="last"'),
    ]
    assert grid.every_arm == (Arm("base"), *(Arm(", ".join(pair), pair) for pair in combinations))
    assert (grid.base, grid.seeds, grid.data[0].folds) == ("demo", (0, 1), ("a", "b+c"))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("seeds", "seads", "Unknown key 'seads'"),
        ('folder = "h', 'folders = "h', "Unknown key 'data.folders'"),
        ('name = "base"', 'name = "base"\nset = ["rounds=2"]', "Unknown key 'arms.set'"),
        ("[0, 1]", "[0, 0]", "seeds: expected"),
        ("[0, 1]", "[]", "seeds: expected"),
        ("[0, 1]", '["0"]', "seeds: expected a whole number"),
        ('folds = ["a", "b+c"]', "", "data 'phantoms': expected a folder, and folds"),
        ('[[arms]]\nname = "base"', "", "there is none"),
        ('name = "base"', 'name = "base"\n[[arms]]\nname = "base"', "arms: expected each once"),
        ('name = "base"', 'name = "base"\nsettings = ["seed = 3"]', "arm 'base': seed = 3: the seeds stand in `seeds`"),
        ('name = "base"', 'name = "base"\n[product]\nseed = [3]', "the seeds stand in `seeds`"),
        ('name = "base"', 'name = "base"\n[product]\nrounds = 3', 'product: expected "rounds" = [one value'),
        ('name = "base"', 'name = "base"\n[product]\nrounds = [{a = 1}]', "tables go into [[arms]]"),
        ("seeds =", "seeds", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in GRID
    with pytest.raises(ConfigError) as refused:
        read_grid(write(tmp_path, GRID.replace(before, after, 1)))
    assert said in str(refused.value)
    assert "grid.toml" in str(refused.value)


def test_a_grid_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_grid(tmp_path / "none.toml")
