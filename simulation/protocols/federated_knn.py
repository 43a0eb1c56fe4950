"""kNN in which no patient's distance leaves a site: each site's nearest vote there, and it tells the sums by class.

The asked patients' features go to every site. A site with at least `min_patients` labelled patients answers, for each asked
patient, with C numbers: sums of exp((s - 1) / T) over its max(k, min_patients) nearest. Neighbours are so counted site by site,
not the k nearest of all: it is not the pooled kNN, but where every patient votes. Sums are no privacy of themselves: at a low
temperature the nearest patient is most of one.

Q asked patients, F features, C classes.
"""

from dataclasses import dataclass

import numpy as np

from common.errors import DataError
from simulation.protocols.knn import TEMPERATURE, K, check, cosines, votes
from simulation.protocols.protocol import Answer, Floats, Training
from simulation.protocols.scale import fit_scale

TOLD = "sums of features; votes by class for each asked patient, whose features every site sees"


@dataclass(frozen=True)
class FederatedKNN:
    """The k nearest of each site vote."""

    k: int = K
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        check(self.k, self.temperature)

    @property
    def name(self) -> str:
        """In tables."""
        return "kNN, federated"

    def answer(self, training: Training, asked: Floats, generator: np.random.Generator) -> Answer:
        """See `FrozenProtocol.answer`.

        Raises:
            DataError: no site has enough patients.
        """
        del generator
        sites, refused = training.each_site()
        if not sites:
            raise DataError("no site has `policy.min_patients` labelled patients")
        seen = np.any([np.isfinite(own.x).any(0) for own in sites], axis=0)
        filling = np.where(seen, fit_scale([own.x for own in sites]).mean, np.nan)
        found, voting = np.zeros((len(asked), training.classes)), list[int]()
        for own in sites:
            k = max(self.k, training.least[int(own.sites[0])])
            voting.append(min(k, len(own.y)))
            found += votes(cosines(own.x, asked, filling), own.y, training.classes, k, self.temperature)
        nearest = " and ".join(map(str, sorted({min(voting), max(voting)})))
        chosen = f"the {nearest} nearest at each of {len(sites)} sites, T = {self.temperature:g}; {refused} refused"
        return Answer((found / found.sum(1, keepdims=True))[None], 0, chosen, TOLD)
