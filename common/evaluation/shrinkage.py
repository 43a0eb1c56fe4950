"""Oracle approximating shrinkage of a covariance (Chen et al., IEEE Trans. Signal Processing 2010;58:5016). f features."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def shrunk_covariance(covariance: Matrix, mean: Matrix, count: float) -> Matrix:
    """A covariance [f, f] that can be inverted, from one of few patients.

    Its correlations shrink towards none by oracle approximating shrinkage, which needs no more than the covariance itself (Chen
    et al., eq. 23). Deviations below what sums in float32 can tell are taken for that much.

    Args:
        mean: [f], of the same patients.
        count: how many they are.
    """
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-4 + 1e-6 * mean**2))
    correlation = covariance / np.outer(scale, scale)
    width = len(scale)
    level, square = float(np.trace(correlation)) / width, float(np.mean(correlation**2))
    excess = (count + 1.0) * (square - level**2 / width)
    share = min(1.0, (square + level**2) / excess) if excess > 0 else 1.0
    mixed = (1.0 - share) * correlation + (share * level + 1e-3) * np.eye(width)
    return np.asarray(mixed * np.outer(scale, scale))
