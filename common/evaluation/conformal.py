"""The one rank of split conformal prediction (Lei et al., JASA 2018; Angelopoulos & Bates 2021, section 1), in a histogram.

Sites send how many patients have each score, not the scores, so the answer is a bin. K bins.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def conformal_bin(histogram: NDArray[Any], coverage: float) -> int | None:
    """The bin of the ceil((n + 1) coverage)-th smallest of n scores.

    A new patient's score, exchangeable with these, does not lie beyond the bin with a chance of at least `coverage`.

    Args:
        histogram: [K], how many patients have each score; added up over sites.
        coverage: between 0 and 1.

    Returns:
        None where the patients are too few for the promise.
    """
    counts = np.asarray(histogram, np.float64)
    patients = float(counts.sum())
    rank = math.ceil((patients + 1) * coverage - 1e-9)
    if patients < 1 or rank > patients:
        return None
    return int(np.searchsorted(counts.cumsum(), rank))
