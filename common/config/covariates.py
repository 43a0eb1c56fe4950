"""Clinical covariates: columns of participants.tsv that the model may take beside the images.

`data.covariates = ["age", "sex"]` names rows of the table below; another column is a table of its own in the same list:
`{ name = "kps", centre = 80.0, scale = 15.0 }` for a number, `{ name = "side", values = ["left", "right"] }` for a category.

Numbers are standardised by a centre and a scale that are fixed before the run, and not by sums over the sites' patients: with a
flag that says a value is known beside it, another centre or scale is another start of the same linear map, so that sums would buy
nothing but an exchange that discloses, and that a private run had to pay for.
"""

import math
import re
from dataclasses import dataclass

from common.errors import ConfigError

MISSING = "n/a"  # what an alias gives for a word that says nothing
LIMIT = 4.0  # standardised values end here: one slip of a table must not drown the images


def read_number(word: str) -> float | None:
    """A finite number as people write one; None for other words, such as `1_0`, which Python would take for ten."""
    if not re.fullmatch(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", word.strip()):
        return None
    value = float(word)
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Covariate:
    """One column: a number (`scale` above 0) or a category (`values`).

    Attributes:
        name: of the column, and in configurations, reports and `fedmri-site predict`.
        centre, scale: of a number, in its own unit: (x - centre) / scale is what the model sees.
        low, high: of a number: what lies outside is a mistake; equal: any number is taken.
        unit: of a number, for messages.
        values: of a category.
        aliases: of a category: further words and the values that they mean, or n/a; upper and lower case are one.
    """

    name: str
    centre: float = 0.0
    scale: float = 0.0
    low: float = 0.0
    high: float = 0.0
    unit: str = ""
    values: tuple[str, ...] = ()
    aliases: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        where = f"data.covariates, {self.name!r}"
        if not self.name.strip() or not self.name.isprintable() or "=" in self.name:
            raise ConfigError(f"{where}: expected the name of a column, printable and without '='.")
        if self.values:
            self._require_category(where)
        elif not (math.isfinite(self.centre) and math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(
                f"{where}: expected a number with centre and a scale above 0, or a category with values; got "
                f"centre = {self.centre!r}, scale = {self.scale!r}, values = []."
            )
        elif self.low > self.high:
            raise ConfigError(f"{where}: expected low up to high, got {self.low!r} and {self.high!r}.")

    def _require_category(self, where: str) -> None:
        if self.scale or len(self.values) < 2 or len({value.lower() for value in self.values}) != len(self.values):
            raise ConfigError(f"{where}: expected a category of two or more different values, and no scale; got {self.values}.")
        known = {*self.values, MISSING}
        if wrong := [list(pair) for pair in self.aliases if len(pair) != 2 or pair[1] not in known]:
            raise ConfigError(f"{where}: expected aliases [word, value], value one of {', '.join(sorted(known))}; got {wrong}.")

    @property
    def expected(self) -> str:
        """What a cell of the table may hold, in words."""
        if self.values:
            return f"one of {', '.join(self.values)}"
        unit = f" in {self.unit}" if self.unit else ""
        return f"a number{unit}" + (f" from {self.low:g} to {self.high:g}" if self.low < self.high else "")

    def read(self, word: str) -> float | None:
        """The number, or the category's place among `values`; None for a word that is neither, NaN for one that says n/a."""
        return self._category(word) if self.values else self._number(word)

    def show(self, value: float) -> str:
        """A value that `read` gave, as a table writes it."""
        if math.isnan(value):
            return MISSING
        return self.values[int(value)] if self.values else f"{value:g}"

    def _category(self, word: str) -> float | None:
        meanings = {alias.lower(): value for alias, value in self.aliases} | {value.lower(): value for value in self.values}
        meant = meanings.get(word.lower())
        if meant == MISSING:
            return math.nan
        return None if meant is None else float(self.values.index(meant))

    def _number(self, word: str) -> float | None:
        value = read_number(word.removesuffix("+"))  # BIDS lets `89+` hide the very old
        if value is None or (self.low < self.high and not self.low <= value <= self.high):
            return None
        return value


ROWS = (
    # Half way between IDH-mutant astrocytomas (36 to 37 years: Reuss et al., Acta Neuropathol 2015;129:867) and glioblastomas
    # (65 in the median: CBTRUS, Ostrom et al., Neuro-Oncology 2022;24(S5):v1), and half the distance, to the next five years.
    Covariate("age", centre=50.0, scale=15.0, low=0.0, high=120.0, unit="years"),
    # BIDS: M, F, O, or the words; O is neither of the two, and so says nothing to a model that knows two.
    Covariate("sex", values=("F", "M"), aliases=(("female", "F"), ("male", "M"), ("o", MISSING), ("other", MISSING))),
)
COVARIATES = {row.name: row for row in ROWS}
