"""The declared grid, a TOML file: the base configuration, the arms, the seeds, the hospitals.

base = "demo"
settings = ["rounds=6"]                  # of every arm
seeds = [0, 1, 2]

[[data]]
name = "phantoms"
folder = "runs/demo/hospitals"
folds = ["external"]                     # external sites; those joined by + are left out together

[[arms]]
name = "as it is"

[[arms]]
name = "fedprox"
settings = ["objective.terms.fedprox.weight=0.01"]

[product]                                # every combination is an arm, after those above
"training.learning_rate" = [1e-4, 3e-4]
"model.blocks" = [2, 4]
"""

import itertools
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config.site import check_name
from common.errors import ConfigError
from common.schema import build, rows

SEED = "seed"


@dataclass(frozen=True)
class Arm:
    """One variant: what differs from the base, as key=value texts."""

    name: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hospitals:
    """A folder of site folders, and which of them are external in each fold."""

    name: str
    folder: str = ""
    folds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """All that a grid's file may hold."""

    base: str = "demo"
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    data: tuple[Hospitals, ...] = rows(Hospitals, {})
    arms: tuple[Arm, ...] = rows(Arm, {})
    product: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds: expected one or more numbers, each once, such as [0, 1, 2]; got {list(self.seeds)}.")
        if not self.data:
            raise ConfigError("data: expected one or more tables of name, folder and folds; there is none.")
        for one in self.data:
            check_name(one.name)
            if not one.folder or not one.folds:
                raise ConfigError(f"data {one.name!r}: expected a folder, and folds: the external site of each.")
        names = [arm.name for arm in self.every_arm]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            said = f"{twice[0]!r} is there twice" if twice else "there is none"
            raise ConfigError(f"arms: expected arms of names of their own, in [[arms]] or [product]; {said}.")
        for arm in self.every_arm:
            for setting in (*self.settings, *arm.settings):
                if setting.partition("=")[0].strip() == SEED:
                    raise ConfigError(f"arm {arm.name!r}: {setting}: the seeds stand in `seeds`, the same for all arms.")

    @property
    def every_arm(self) -> tuple[Arm, ...]:
        """The listed arms, then every combination of the product, its last key fastest."""
        return (*self.arms, *_combinations(self.product))


def read_grid(file: Path) -> Grid:
    """Read the file.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key or a wrong value, named by its dotted key.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Grid {file}: cannot be read ({error.strerror}). Name an existing TOML file.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"Grid {file}: not valid TOML ({error}).") from error
    try:
        grid: Grid = build(Grid, table)
    except ConfigError as error:
        raise ConfigError(f"Grid {file}: {error}") from error
    return grid


def _combinations(product: dict[str, object]) -> list[Arm]:
    settings = [[f"{key}={_text(key, value)}" for value in _values(key, values)] for key, values in product.items()]
    return [Arm(", ".join(combination), combination) for combination in itertools.product(*settings) if combination]


def _values(key: str, values: object) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f'product: expected "{key}" = [one value, another, ...]; got {values!r}.')
    return values


def _text(key: str, value: object) -> str:
    """As a `key=value` setting writes it: TOML, which is JSON for all but tables."""
    if not isinstance(value, str | int | float | list):
        raise ConfigError(
            f'product: "{key}" has {value!r}: expected numbers, texts, true, false or lists; tables go into [[arms]].'
        )
    return json.dumps(value)
