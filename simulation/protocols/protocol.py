"""The interface of a protocol: labelled training patients in, class probabilities of the asked patients out.

N training patients, Q asked ones, F features, C classes of the run, R draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Training:
    """Labelled patients of all training sites; one row a patient, so that whatever splits rows splits patients.

    Attributes:
        x: [N, F], NaN where the patient lacks what a feature is of.
        y: [N], from 0.
        classes: C.
        sites: [N], the number of each patient's site.
        least: of each site, how many patients a sum that leaves it must be of (`policy.min_patients`).
    """

    x: Floats
    y: Ints
    classes: int
    sites: Ints
    least: tuple[int, ...]

    def select(self, rows: NDArray[Any]) -> "Training":
        """Some of the patients."""
        return Training(self.x[rows], self.y[rows], self.classes, self.sites[rows], self.least)

    def each_site(self) -> tuple[list["Training"], int]:
        """The patients of each site that has enough of them to share sums, and how many sites with patients have not.

        A feature that fewer of a site's patients have than that is taken for absent there: a sum of it would be of these few.
        """
        found = [self.select(self.sites == site) for site in range(len(self.least))]
        willing = []
        for own, least in zip(found, self.least, strict=True):
            if len(own.y) >= max(1, least):
                enough = np.isfinite(own.x).sum(0) >= least
                willing.append(replace(own, x=np.where(enough, own.x, np.nan)))
        return willing, sum(len(own.y) > 0 for own in found) - len(willing)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a protocol says.

    Attributes:
        probabilities: [R, Q, C], once for each draw of training patients; a class that no training patient has gets 0.
        parameters: trained numbers.
        chosen: settings and what training made of them, in words.
        told: what leaves a site, in words; "": patients are pooled.
    """

    probabilities: Floats
    parameters: int
    chosen: str
    told: str = ""


class FrozenProtocol(Protocol):
    """One way to classify by features that nothing has trained."""

    @property
    def name(self) -> str:
        """In tables."""
        ...

    def answer(self, training: Training, asked: Floats, generator: np.random.Generator) -> Answer:
        """Learn from the training patients alone, then answer.

        Args:
            training: N labelled patients.
            asked: [Q, F], NaN where absent; nothing is learned from them.
            generator: draws whatever is drawn: equal seeds, equal answers.

        Raises:
            DataError: too few patients for it.
        """
        ...


def spread_over(probabilities: Floats, known: Sequence[int] | Ints, classes: int) -> Floats:
    """Probabilities [Q, K] of the K known classes as [Q, C]."""
    found = np.zeros((len(probabilities), classes))
    found[:, known] = probabilities
    return found
