"""Few-shot by sums that leave the sites: the federated probe on a few drawn patients of each class, several times.

The same patients are drawn as for `few_shot`, and where every site with one of them has `min_patients` of them, the fit is that
one. A site with fewer takes no part: a sum of one patient's features would be this patient. One draw is told in a federation;
those here are several federations, for sums over different draws of the same patients could be taken apart.
"""

from dataclasses import dataclass

import numpy as np

from simulation.protocols.federated_probe import federated_fit
from simulation.protocols.few_shot import FewShot, draw
from simulation.protocols.linear_probe import FIXED
from simulation.protocols.protocol import Answer, Floats, Training


@dataclass(frozen=True)
class FederatedFewShot(FewShot):
    """`shots` patients of each class that training has, all sites together."""

    @property
    def name(self) -> str:
        """In tables."""
        return f"{super().name}, federated"

    @property
    def drawn_as(self) -> str:
        """The protocol whose draws it has."""
        return super().name

    def answer(self, training: Training, asked: Floats, generator: np.random.Generator) -> Answer:
        """See `FrozenProtocol.answer`.

        Raises:
            DataError: a class has fewer patients than that, no site has enough of those drawn, or there are too many features.
        """
        drawn = [draw(training.y, self.shots, generator) for _ in range(self.draws)]
        fits = [federated_fit(training.select(rows), asked, FIXED) for rows in drawn]
        said, last = np.concatenate([fit.probabilities for fit in fits]), fits[-1]
        return Answer(said, last.parameters, f"{self.draws} draws, the last: {last.chosen}", last.told)
