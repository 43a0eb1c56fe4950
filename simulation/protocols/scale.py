"""Features of mean 0 and deviation 1 over the training patients, an absent one at the mean; from sums, which sites can tell.

N patients of a site, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulation.protocols.protocol import Floats

CONSTANT = 1e-10  # of the mean: a deviation below it is rounding


@dataclass(frozen=True, eq=False)
class Scale:
    """Mean and deviation of each feature [F]."""

    mean: Floats
    deviation: Floats

    def apply(self, x: Floats) -> Floats:
        """[N, F], standardised, with 1 appended for the intercept: [N, F + 1]."""
        z = np.where(np.isfinite(x), (x - self.mean) / self.deviation, 0.0)
        return np.concatenate([z, np.ones((len(z), 1))], axis=1)


def fit_scale(sites: Sequence[Floats]) -> Scale:
    """Of the patients of all sites. Each tells two rounds of sums [F]: known values and their sum, then squared distances.

    An absent value counts as the mean in the deviation, as if it had been filled in before. A feature that nobody has, or that is
    the same for everybody, has deviation 1.

    Args:
        sites: [N, F] of each, NaN where absent.
    """
    known = np.sum([np.isfinite(x).sum(0) for x in sites], axis=0)
    mean = np.sum([np.nansum(x, axis=0) for x in sites], axis=0) / np.maximum(known, 1)
    squares = np.sum([np.nansum((x - mean) ** 2, axis=0) for x in sites], axis=0)
    deviation = np.sqrt(squares / sum(len(x) for x in sites))
    return Scale(mean, np.where(deviation > CONSTANT * np.maximum(np.abs(mean), 1), deviation, 1.0))
