"""Scanner-like clusters of the external patients, from how they were imaged; labels and predictions are not used.

N patients, K clusters, F columns.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from common.evaluation.subgroups.acquisition import Acquisition

MOST = 4  # clusters
CLEAR = 0.5  # mean silhouette from which a structure is called reasonable (Kaufman & Rousseeuw 1990, chapter 2, table 4)
FEWEST = 5  # patients a cluster, on average: of fewer any few look like clusters
LARGEST = 3.0  # standard deviations: one outlying patient must not make a cluster of all the others
# Least standard deviations to divide by: else the chance spread of one scanner's patients counts as much as a second scanner.
HEADER, STATISTIC = 0.05, 0.2  # of a logarithm: 5% and 20%
APART = 1.0  # least distance of two clusters' centres, in these: silhouettes know shapes, not sizes

Ints = NDArray[np.int64]


def cluster(acquisitions: Sequence[Acquisition]) -> list[str]:
    """The name of each patient's cluster [N]; k by the best mean silhouette up to `MOST`, one where none separates clearly.

    Columns: logarithms of voxel spacing, matrix, noise and sharpness, and the data type; standardised, k-means, fixed seed.
    """
    if not acquisitions:
        return []
    from scipy.spatial.distance import pdist  # noqa: PLC0415  the three take a second
    from sklearn.cluster import KMeans  # noqa: PLC0415
    from sklearn.metrics import silhouette_score  # noqa: PLC0415

    columns = _columns(acquisitions)
    best, chosen = CLEAR, np.zeros(len(acquisitions), np.int64)
    for k in range(2, min(MOST, len(np.unique(columns, axis=0)), len(acquisitions) // FEWEST) + 1):
        means = KMeans(k, n_init=10, random_state=0).fit(columns)
        score = float(silhouette_score(columns, means.labels_))
        if score > best and pdist(means.cluster_centers_).min() >= APART:
            best, chosen = score, means.labels_.astype(np.int64)
    return _named(acquisitions, chosen)


def _columns(acquisitions: Sequence[Acquisition]) -> NDArray[np.float64]:
    """[N, F], standardised."""
    numbers = np.array([[*a.spacing, *a.matrix, a.noise, a.sharpness] for a in acquisitions], np.float64).reshape(-1, 7)
    logs = np.log(np.maximum(numbers, 1e-6))
    kinds = sorted({a.dtype for a in acquisitions})
    marks = np.array([[a.dtype == kind for kind in kinds[1:]] for a in acquisitions], np.float64).reshape(len(acquisitions), -1)
    columns = np.concatenate([logs, marks], axis=1)
    least = np.array([HEADER] * 5 + [STATISTIC] * 2 + [HEADER] * (len(kinds) - 1))
    return np.asarray(np.clip((columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), least), -LARGEST, LARGEST))


def _named(acquisitions: Sequence[Acquisition], chosen: Ints) -> list[str]:
    """Each patient's cluster by its header; by noise and sharpness, too, where headers do not differ."""
    members = {k: [a for a, c in zip(acquisitions, chosen, strict=True) if c == k] for k in sorted(set(chosen.tolist()))}
    names = {k: _header(group) for k, group in members.items()}
    alike = {k for one, other in combinations(names, 2) if names[one] == names[other] for k in (one, other)}
    for k in alike:
        noise, sharpness = (np.median([getattr(a, what) for a in members[k]]) for what in ("noise", "sharpness"))
        names[k] += f", noise {noise:.3f}, sharpness {sharpness:.3f}"
    repeated = [k for k in names if list(names.values()).count(names[k]) > 1]
    names |= {k: f"{names[k]} ({number})" for number, k in enumerate(repeated, start=1)}
    return [names[int(c)] for c in chosen]


def _header(group: Sequence[Acquisition]) -> str:
    """Such as "1.0 x 1.0 x 5.0 mm, matrix 160 x 160, int16": medians, and the commonest type."""
    x, y, z = np.median([a.spacing for a in group], axis=0)
    columns, rows = np.median([a.matrix for a in group], axis=0).astype(int)
    kinds = sorted(a.dtype for a in group)
    matrix = f"{columns}" if columns == rows else f"{columns} x {rows}"
    return f"{x:.1f} x {y:.1f} x {z:.1f} mm, matrix {matrix}, {max(dict.fromkeys(kinds), key=kinds.count)}"
