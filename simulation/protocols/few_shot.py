"""Few-shot: the linear probe on a few drawn patients of each class, several times.

N training patients, K classes that they have, R draws.
"""

from dataclasses import dataclass

import numpy as np

from common.errors import ConfigError, DataError
from simulation.protocols.linear_probe import FIXED, fit_and_answer
from simulation.protocols.protocol import Answer, Floats, Ints, Training

SHOTS = (1, 2, 4, 8, 16)
DRAWS = 10


@dataclass(frozen=True)
class FewShot:
    """`shots` patients of each class that training has; whoever is not drawn is not seen, by standardisation neither."""

    shots: int
    draws: int = DRAWS

    def __post_init__(self) -> None:
        for name, value in (("--shots", self.shots), ("--draws", self.draws)):
            if value < 1:
                raise ConfigError(f"{name}: expected 1 or more, got {value}.")

    @property
    def name(self) -> str:
        """In tables."""
        return f"few-shot, {self.shots} a class"

    @property
    def drawn_as(self) -> str:
        """The protocol whose draws it has."""
        return self.name

    def answer(self, training: Training, asked: Floats, generator: np.random.Generator) -> Answer:
        """See `FrozenProtocol.answer`; too few patients to choose a strength by, so it is fixed.

        Raises:
            DataError: a class has fewer patients than that.
        """
        drawn = [draw(training.y, self.shots, generator) for _ in range(self.draws)]
        said = np.stack([fit_and_answer(training.select(rows), asked, FIXED) for rows in drawn])
        known = len(np.unique(training.y))
        parameters = known * (training.x.shape[1] + 1) if known > 1 else 0
        return Answer(said, parameters, f"C = {FIXED:g}, fixed; {self.draws} draws")


def draw(y: Ints, shots: int, generator: np.random.Generator) -> Ints:
    """Rows [K shots], as many of each class that there is.

    Raises:
        DataError: a class has fewer.
    """
    known, counts = np.unique(y, return_counts=True)
    if counts.min() < shots:
        raise DataError(f"the rarest class has {counts.min()} labelled training patients")
    return np.concatenate([generator.choice(np.flatnonzero(y == c), shots, replace=False) for c in known])
