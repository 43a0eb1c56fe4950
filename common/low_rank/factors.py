"""Products of thin matrices that are never multiplied out: their sum, their norm, and the best product of a smaller rank.

O outputs, I inputs of a map, R rank of a product. All in float64.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Factors(NamedTuple):
    """A matrix [O, I] as a product.

    Attributes:
        left: [O, R].
        right: [R, I].
    """

    left: Matrix
    right: Matrix


def added(parts: Iterable[Factors]) -> Factors:
    """The sum of the products, as one: factors side by side, the ranks add up."""
    lefts, rights = zip(*parts, strict=True)
    return Factors(np.concatenate(lefts, axis=1), np.concatenate(rights, axis=0))


def scaled(factors: Factors, by: float) -> Factors:
    """A multiple of the product."""
    return Factors(by * factors.left, factors.right)


def norm(factors: Factors) -> float:
    """Frobenius norm of the product, from the triangles of its factors: nothing of size [O, I] is made."""
    return float(np.linalg.norm(_core(factors)[1]))


def truncated(factors: Factors, rank: int) -> Factors:
    """The nearest product of at most `rank` (Eckart and Young, 1936), by QR of the factors and an SVD of the small core.

    Returns:
        left [O, rank], singular vectors times singular values; right [rank, I], rows of norm 1. Where O, I or R is smaller than
        `rank`, the rest is zero.
    """
    (left, right), core = _core(factors)
    u, values, v = np.linalg.svd(core)
    keep = min(rank, len(values))
    new_left, new_right = left @ u[:, :keep] * values[:keep], v[:keep] @ right
    signs = np.where(np.take_along_axis(new_right, np.abs(new_right).argmax(1)[:, None], axis=1) < 0, -1.0, 1.0)
    pad = rank - keep  # of each singular vector and its opposite, the one whose largest entry is positive
    return Factors(
        np.pad(new_left * signs[:, 0], ((0, 0), (0, pad))),
        np.pad(new_right * signs, ((0, pad), (0, 0))),
    )


def _core(factors: Factors) -> tuple[Factors, Matrix]:
    """Orthonormal columns [O, p], rows [q, I], and between them the core [p, q]: their product is the factors' own."""
    left, upper = np.linalg.qr(factors.left)
    right, lower = np.linalg.qr(factors.right.T)
    return Factors(left, right.T), upper @ lower.T
