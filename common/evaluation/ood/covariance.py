"""Oracle approximating shrinkage of a covariance (Chen et al., IEEE Trans. Signal Processing 2010;58:5016). f features."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def shrunk_covariance(covariance: Matrix, mean: Matrix, count: float) -> tuple[Matrix, float]:
    """An invertible covariance [f, f], estimated from few patients by shrinkage, and the shrinkage's weight.

    Its correlations shrink towards none by oracle approximating shrinkage, which needs no more than the covariance itself (Chen
    et al., eq. 23). Deviations below what sums in float32 can tell are taken for that much.

    Args:
        covariance: [f, f], may be singular.
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
    return np.asarray(mixed * np.outer(scale, scale)), share


def typical_distance(ratio: Matrix, share: float, count: float) -> float:
    """The mean squared Mahalanobis distance of a patient who is like those behind the covariance, but not one of them.

    Theirs is d = tr(ratio). Of others, all normal, it is d (count + 1) / (count - d - 2) where nothing was shrunk (Hotelling's
    T^2), and d (count + 1) / (count - 3) where only the deviations are left; between them by the share. So distances to few
    patients compare with those to many.

    Args:
        ratio: [f, f], inverse of the shrunk covariance times the covariance.
        share: of shrinkage.
        count: the patients behind it.
    """
    own = float(np.trace(ratio))
    left = count - (1.0 - share) * own - 2.0 - share
    return max(own * (count + 1.0) / max(left, 0.1 * count), 0.1 * len(ratio))


def cube_root_variance(ratio: Matrix) -> float:
    """The variance of the cube root of a squared distance over its mean, which lies as far below 1 (Wilson and Hilferty, 1931).

    It is 2 / (9 n) of a chi-squared with n degrees of freedom; n as in Satterthwaite's approximation (Biometrics Bulletin 1946).

    Args:
        ratio: as in `typical_distance`.
    """
    squares = float(np.sum(ratio * ratio.T))
    freedom = float(np.trace(ratio)) ** 2 / squares if squares > 0 else 1.0
    return 2.0 / (9.0 * max(freedom, 1.0))
