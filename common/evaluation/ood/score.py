"""Out of distribution: how unlike the federation's patients a patient is, from images and backbone features.

Gaussians (Lee et al., NeurIPS 2018, eq. 1 and 2, with one class) on four kinds of `common.evaluation.ood.features`, each
modality's or pair's its own:

- image: contrast, sharpness, noise (`common.evaluation.ood.image_statistics`);
- frozen: features of the modality by the untouched backbone;
- adapted: features of it by the trained one;
- pair: how well two modalities agree (`common.evaluation.ood.modality_agreement`).

The adapted Gaussians are of patients that were never trained on: a model's features of those it has seen tell little of others.

The Gaussians travel as counts, sums and sums of outer products, which add up over sites, and from which a site can take its own
out again. **What they disclose about patients**: the moments of one patient are that patient's features; those of a few bound
them. They are no pictures, but whoever holds the backbone can test whether a patient whose images they have is among them. So
they leave a site only where its policy says `share_calibration`, and `min_patients` bounds how few they may be of.

N patients, M modalities, D width, F features of a modality, K bins. R = M (M + 3) / 2 rows of f features each: modalities by
their images and frozen features, pairs by their agreement, modalities by their adapted features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from common.config.run import RunConfig
from common.evaluation.conformal import conformal_bin
from common.evaluation.ood.covariance import cube_root_variance, shrunk_covariance, typical_distance
from common.evaluation.ood.features import ADAPTED, ALONE, KINDS, PROJECTED, Matrix
from common.evaluation.ood.image_statistics import STATISTICS
from common.evaluation.ood.modality_agreement import AGREEMENTS
from common.models.arrays import Arrays

WIDTH = STATISTICS + PROJECTED  # features f of a row
NAMES = ("ood.count", "ood.sum", "ood.outer")
MIN_COUNT = 8  # patients behind a Gaussian, below which it says nothing
# Of KINDS: how much more the cube roots of distances scatter between hospitals than within one; chosen on phantoms and one real
# hospital. Agreement has no part in it: a scanner changes both modalities.
SCANNER = (0.2, 0.1, 0.1)
SCORE_EDGES: Matrix = np.concatenate([[0.0], np.geomspace(0.01, 1000.0, 577), [np.inf]])  # 2% apart


def _rows(found: Matrix) -> Matrix:
    """From [N, M, F] to [N, R, f]: modalities untrained, pairs, modalities adapted; features that a row lacks are 0."""
    modalities = found.shape[1]
    one, other = np.triu_indices(modalities, 1)
    agreement = found[:, :, ALONE:].reshape(len(found), modalities, modalities, AGREEMENTS)[:, one, other]
    pairs = np.pad(agreement, ((0, 0), (0, 0), (0, WIDTH - AGREEMENTS)))
    pairs[~(_known(found[:, one, :ALONE]) & _known(found[:, other, :ALONE]))] = np.nan
    adapted = np.pad(found[:, :, KINDS[2]], ((0, 0), (0, 0), (0, WIDTH - ADAPTED)))
    return np.concatenate([found[:, :, :WIDTH], pairs, adapted], axis=1)


def _known(rows: Matrix) -> NDArray[np.bool_]:
    """[N, R, f] to [N, R]: whether all is finite."""
    return np.asarray(np.isfinite(rows).all(2))


def moments_like(config: RunConfig) -> Arrays:
    """Moments of no patients: the names and shapes that a site's moments have."""
    m = len(config.data.modalities)
    return moments(np.zeros((0, m, ALONE + m * AGREEMENTS)))


def moments(found: Matrix, held: Matrix | None = None, least: int = 0) -> Arrays:
    """Count [R], sum [R, f] and sum of outer products [R, f, f] over the patients in whom a row is known.

    Args:
        found: [N, M, F], as `features` gives them, of patients that trained.
        held: the same of those that did not, for the rows of adapted features. None: none of `found` trained; they serve for all.
        least: a row that fewer of the patients have is left out: the moments of one patient would be that patient's features.
    """
    rows = _rows(found)
    if held is not None:
        first = rows.shape[1] - found.shape[1]  # of the adapted rows
        trained, rows = rows, np.concatenate([rows, _rows(held)])
        rows[: len(trained), first:] = np.nan
        rows[len(trained) :, :first] = np.nan
    here = _known(rows)
    here &= here.sum(0) >= least
    known = np.where(here[..., None], rows, 0.0)
    parts = (here.sum(0), known.sum(0), np.einsum("nrf,nrg->rfg", known, known))
    return {name: part.astype(np.float32) for name, part in zip(NAMES, parts, strict=True)}


def add(*several: Arrays) -> Arrays:
    """The moments of several sites together; of one or more."""
    return {name: np.asarray(sum(one[name].astype(np.float64) for one in several), np.float32) for name in NAMES}


def pool(*sites: Arrays) -> Arrays:
    """The moments of all sites together, without rows that some site would not know once its own are taken out.

    Sites make the threshold by scoring their patients against the others; what they cannot score with must not score anybody.
    """
    together = add(*sites)
    fewest = np.min([together[NAMES[0]] - own[NAMES[0]] for own in sites], axis=0)
    known = fewest >= MIN_COUNT
    return {name: np.where(known.reshape(-1, *[1] * (part.ndim - 1)), part, np.float32(0.0)) for name, part in together.items()}


def subtract(everyone: Arrays, own: Arrays) -> Arrays:
    """The moments of all sites but one."""
    return {name: (everyone[name].astype(np.float64) - own[name]).astype(np.float32) for name in NAMES}


@dataclass(frozen=True, eq=False)
class Reference:
    """The distribution of the federation's patients: for each row a Gaussian of each kind of features.

    Attributes:
        known: [R], whether enough patients are behind it.
        mean: [R, f].
        precision: [R, f, f], zero between kinds; scaled: a patient like those of the reference has squared distance 1 on average,
            by a pair's agreement less, for half of it is excused.
        spread: [R, 2], variance of the cube root of that squared distance; NaN where a row has no such kind.
    """

    known: NDArray[np.bool_]
    mean: Matrix
    precision: Matrix
    spread: Matrix

    @staticmethod
    def fit(sums: Arrays) -> "Reference":
        """From moments, as `moments` gives them or added up; covariances are shrunk as far as few patients ask for."""
        count, total, outer = (sums[name].astype(np.float64) for name in NAMES)
        safe = np.maximum(count, 1.0)[:, None]
        mean = total / safe
        covariance = outer / safe[..., None] - mean[:, :, None] * mean[:, None, :]
        precision, spread = np.zeros_like(outer), np.full((len(count), 2), np.nan)
        for r in np.flatnonzero(count >= MIN_COUNT):
            for k, part in enumerate(_kinds(len(count))[r]):
                own = covariance[r, part, part]
                shrunk, share = shrunk_covariance(own, mean[r, part], float(count[r]))
                inverse: Matrix = np.linalg.inv(shrunk).astype(np.float64)
                precision[r, part, part] = inverse / typical_distance(inverse @ own, share, float(count[r]))
                spread[r, k] = cube_root_variance(inverse @ own)
        return Reference(count >= MIN_COUNT, mean, precision, spread)

    def distances(self, found: Matrix) -> Matrix:
        """Squared Mahalanobis distances over the average one, [N, R, 2], NaN where nothing is known.

        Of a modality: by its image, by the frozen features; of a pair: by its agreement; of a modality again: by the adapted
        features.
        """
        rows = _rows(found)
        squared = np.full((*rows.shape[:2], 2), np.nan)
        for r in np.flatnonzero(self.known):
            here = _known(rows[:, r : r + 1])[:, 0]
            for k, part in enumerate(_kinds(len(self.known))[r]):
                away = rows[here, r, part] - self.mean[r, part]
                forms = [
                    np.einsum("nf,fg,ng->n", x, self.precision[r, part, part], x) for x in _excused(away, int(r), rows.shape[1])
                ]
                squared[here, r, k] = np.minimum.reduce(forms)
        return squared

    def score(self, found: Matrix) -> Matrix:
        """Out-of-distribution score of each patient, [N], from [N, M, F]: 0 or more; larger is less like the reference.

        The cube roots of a patient's distances are close to normal (Wilson and Hilferty, PNAS 1931), so of each it is known how
        improbable it is, as exp(-z^2 / 2); the score is the harmonic mean of these (Wilson, PNAS 2019), as minus its decimal
        logarithm. The least probable decides, so one broken image among four is seen, and patients with few modalities compare
        with those with many. It is no probability itself: hospitals differ by more than Gaussians say, so the threshold comes
        from hospitals.

        NaN where a patient has nothing of which the reference knows anything.
        """
        distances = self.distances(found)
        scanner = _scanner(len(self.known))
        deviation = (np.cbrt(distances) - 1.0 + self.spread) / np.sqrt(self.spread + scanner**2)
        known = np.isfinite(deviation)
        count = known.sum((1, 2))
        evidence = np.where(known, np.maximum(deviation, 0.0) ** 2 / 2.0, -np.inf)
        total = logsumexp(evidence, axis=(1, 2)) if len(found) else np.zeros(0)
        return np.asarray(np.where(count > 0, total - np.log(np.maximum(count, 1)), np.nan) / np.log(10.0))


def _groups(rows: int) -> tuple[int, int]:
    """How many modalities M there are, and how many pairs of them, by the number of rows R = M (M + 3) / 2."""
    modalities = round((np.sqrt(8 * rows + 9) - 3) / 2)
    return modalities, rows - 2 * modalities


def _kinds(rows: int) -> list[tuple[slice, ...]]:
    """Which features of each row make up one Gaussian each."""
    modalities, pairs = _groups(rows)
    return [KINDS[:2]] * modalities + [(slice(0, AGREEMENTS),)] * pairs + [(slice(0, ADAPTED),)] * modalities


def _excused(away: Matrix, row: int, rows: int) -> list[Matrix]:
    """Deviations [n, f] from the mean, and for a pair the same without what its edges agree better: the smaller distance counts.

    Faults make edges agree less. Hospitals differ in how well they agree, and one whose registration is better than the others'
    is not suspicious; one image in two modalities' places shows by its intensities.
    """
    modalities, pairs = _groups(rows)
    if not modalities <= row < modalities + pairs:
        return [away]
    return [away, np.stack([np.maximum(away[:, 0], 0.0), np.minimum(away[:, 1], 0.0), away[:, 2]], axis=1)]


def _scanner(rows: int) -> Matrix:
    """The extra spread between hospitals of each row's kinds of features, [R, 2]."""
    modalities, pairs = _groups(rows)
    return np.array([SCANNER[:2]] * modalities + [(0.0, 0.0)] * pairs + [(SCANNER[2], 0.0)] * modalities)


def histogram(scores: Matrix) -> NDArray[np.float32]:
    """Scores in the bins of `SCORE_EDGES`, [K]; a score that is not a number is in none."""
    counts: NDArray[np.float32] = np.histogram(scores[~np.isnan(scores)], SCORE_EDGES)[0].astype(np.float32)
    return counts


def threshold(counts: NDArray[np.float32], rate: float) -> float:
    """The score above which at most `rate` of patients from the same distribution lie, in the mean over calibration draws.

    The ceil((n + 1) (1 - rate))-th smallest of n scores (split conformal: Lei et al., JASA 2018), rounded up to its bin's edge.
    With fewer than 1 / rate - 1 patients no score is known to be rare enough: infinite, nobody is flagged.

    Args:
        counts: [K], histograms as `histogram` gives them, added up.
        rate: between 0 and 1.
    """
    found = conformal_bin(counts, 1.0 - rate)
    return float("inf") if found is None else float(SCORE_EDGES[1 + found])
