"""How well two modalities of a patient agree: they show the same anatomy, so their edges lie at the same places.

A ghost, noise or a stripe in one of them breaks that, though the image alone may look possible. S slices, H = W pixels.
"""

import numpy as np
from numpy.typing import NDArray

from common.evaluation.ood.image_statistics import AIR

Matrix = NDArray[np.float64]

AGREEMENTS = 3


def modality_agreement(one: Matrix, other: Matrix) -> Matrix:
    """Three measures inside the head, [AGREEMENTS]; the order of the two does not matter.

    - the distance of their normalised gradient fields (Haber and Modersitzki, MICCAI 2006), averaged with the weight of both
      edges, as a logarithm: whether edges run along the same lines;
    - Fisher's z of the correlation of their edges' strengths: whether edges are at the same places;
    - Fisher's z of the correlation of their intensities: whether bright in one means what it should in the other.

    Args:
        one: [S, H, W], intensities 0 to 1.
        other: [S, H, W], another modality on the same grid.
    """
    inside = _inner((one > AIR) & (other > AIR))
    (down, across), (down2, across2) = ([part[inside] for part in _gradients(image)] for image in (one, other))
    strength, strength2 = np.hypot(down, across), np.hypot(down2, across2)
    both = float(np.sum((strength * strength2) ** 2))
    along = float(np.sum((down * down2 + across * across2) ** 2)) / both if both else 0.0
    edges, values = _fisher(strength, strength2), _fisher(one[inside], other[inside])
    return np.array([np.log(max(1.0 - along, 0.0) + 1e-3), edges, values])


def _gradients(image: Matrix) -> tuple[Matrix, Matrix]:
    """Central differences along rows and columns, 0 at the border; two of [S, H, W]."""
    down, across = np.zeros_like(image), np.zeros_like(image)
    down[:, 1:-1] = image[:, 2:] - image[:, :-2]
    across[:, :, 1:-1] = image[:, :, 2:] - image[:, :, :-2]
    return down, across


def _inner(brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[S, H, W] less the pixels at the edge, where every modality has one."""
    kept = np.zeros_like(brain)
    kept[:, 1:-1, 1:-1] = (
        brain[:, 1:-1, 1:-1] & brain[:, 2:, 1:-1] & brain[:, :-2, 1:-1] & brain[:, 1:-1, 2:] & brain[:, 1:-1, :-2]
    )
    return kept


def _fisher(one: Matrix, other: Matrix) -> float:
    """Fisher's z of the correlation; 0 where one of them does not vary."""
    if not one.size or min(float(one.std()), float(other.std())) < 1e-9:
        return 0.0
    return float(np.arctanh(0.999 * np.corrcoef(one, other)[0, 1]))
