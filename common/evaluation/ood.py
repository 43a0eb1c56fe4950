"""Out of distribution: how unlike the patients of the federation a patient is, from the features of each modality he has.

One Gaussian a modality (Lee et al., NeurIPS 2018, eq. 1 and 2, with one class) on features that say three things: what the image
is like as an image (`common.evaluation.image_statistics`), what the frozen backbone says of it, and what the adapted one says.
Each modality runs through the backbones by itself, so what is said of it does not depend on which others there are.

The Gaussians travel as counts, sums and sums of outer products, which add up over sites, and from which a site can take its own
out again. **What they tell about patients**: the moments of one patient are his features; those of a few bound them. They are
no pictures, but who holds the backbone can test whether a patient whose images he has is among them. So they leave a site only
where its policy says `share_calibration`, and `min_patients` bounds how few they may be of.

N patients, M modalities, D width, F features, K bins.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from common.config import RunConfig
from common.data.dataset import SiteData
from common.evaluation.image_statistics import STATISTICS, image_statistics
from common.models.arrays import Arrays
from common.models.multimodal import MultiModalViT
from common.training.device import autocast, choose_device
from common.training.predict import frozen_features

Matrix = NDArray[np.float64]

PROJECTED = 32  # numbers kept of the frozen features, and of the adapted ones
FEATURES = STATISTICS + 2 * PROJECTED  # F
NAMES = ("ood.count", "ood.sum", "ood.outer")
MIN_COUNT = 8  # patients with a modality, below which nothing is said about it
SCORE_EDGES: Matrix = np.concatenate([[0.0], np.geomspace(0.05, 5000.0, 577), [np.inf]])  # 2% apart


def features(
    model: MultiModalViT,
    arrays: Arrays,
    patients: SiteData,
    config: RunConfig,
    present: NDArray[np.bool_] | None = None,
) -> Matrix:
    """What is looked at in each modality of each patient.

    Args:
        model: as `build_model` made it: its own arrays are those of the untouched backbone.
        arrays: the trained ones.
        present: [N, M], to leave out modalities that patients do have; None: as they are.

    Returns:
        [N, M, F], NaN where a modality is absent.
    """
    images = np.stack([image_statistics(np.asarray(one, np.float32)) for one in patients.images])  # [N, M, STATISTICS]
    parts = [images, _project(frozen_features(model, patients, config)), _project(_adapted(model, arrays, patients, config))]
    found = np.concatenate(parts, axis=2)
    found[~(patients.present if present is None else patients.present & present)] = np.nan
    return found


@torch.inference_mode()
def _adapted(model: MultiModalViT, arrays: Arrays, patients: SiteData, config: RunConfig) -> Matrix:
    """The trained embedding of each modality by itself: CLS beside mean patch token, [N, M, 2D]."""
    device = choose_device()
    model.to(device).eval()
    trained = {name: torch.tensor(array, device=device) for name, array in arrays.items()}
    width: int = model.vit.embed_dim  # type: ignore[assignment]
    modalities = patients.present.shape[1]
    rows, columns = np.nonzero(patients.present)
    found = np.full((len(patients), modalities, 2 * width), np.nan)
    for start in range(0, len(rows), config.evaluation.batch_size):
        row, m = rows[start : start + config.evaluation.batch_size], columns[start : start + config.evaluation.batch_size]
        alone = torch.nn.functional.one_hot(torch.as_tensor(m), modalities).bool()
        with autocast(device, config.training.precision):
            embedding = functional_call(model, trained, (patients.take(row)[0].to(device), alone.to(device))).embedding
        parts = embedding.view(len(row), 1 + modalities, width).float().cpu().numpy()
        found[row, m] = np.concatenate([parts[:, 0], parts[np.arange(len(row)), 1 + m]], axis=1)
    return found


def _project(found: Matrix) -> Matrix:
    """[N, M, 2D] to [N, M, PROJECTED]: random signs (Achlioptas, PODS 2001), the same for everybody."""
    signs = np.random.default_rng(0).integers(0, 2, (found.shape[2], PROJECTED)) * 2.0 - 1.0
    return np.asarray(found @ signs / np.sqrt(found.shape[2]))


def moments_like(config: RunConfig) -> Arrays:
    """The moments of nobody: what names and shapes a site's moments have."""
    m = len(config.data.modalities)
    shapes = ((m,), (m, FEATURES), (m, FEATURES, FEATURES))
    return {name: np.zeros(shape, np.float32) for name, shape in zip(NAMES, shapes, strict=True)}


def moments(found: Matrix) -> Arrays:
    """Count [M], sum [M, F] and sum of outer products [M, F, F] over the patients who have the modality.

    Args:
        found: [N, M, F], as `features` gives them.
    """
    here = np.isfinite(found).all(2)
    known = np.where(here[..., None], found, 0.0)
    parts = (here.sum(0), known.sum(0), np.einsum("nmf,nmg->mfg", known, known))
    return {name: part.astype(np.float32) for name, part in zip(NAMES, parts, strict=True)}


def add(*several: Arrays) -> Arrays:
    """The moments of several sites together."""
    return {name: np.sum([one[name].astype(np.float64) for one in several], axis=0).astype(np.float32) for name in NAMES}


def subtract(everyone: Arrays, own: Arrays) -> Arrays:
    """The moments of everyone but one site."""
    return {name: (everyone[name].astype(np.float64) - own[name]).astype(np.float32) for name in NAMES}


@dataclass(frozen=True, eq=False)
class Reference:
    """A Gaussian for each modality."""

    count: Matrix  # [M]
    mean: Matrix  # [M, F]
    precision: Matrix  # [M, F, F]
    typical: Matrix  # [M], the mean squared distance of the patients behind it

    @staticmethod
    def fit(sums: Arrays) -> "Reference":
        """From moments to Gaussians, the covariance shrunk as far as few patients ask for."""
        count, total, outer = (sums[name].astype(np.float64) for name in NAMES)
        safe = np.maximum(count, 1.0)
        mean = total / safe[:, None]
        precision, typical = np.zeros_like(outer), np.ones_like(count)
        for m in np.flatnonzero(count >= MIN_COUNT):
            covariance = outer[m] / count[m] - np.outer(mean[m], mean[m])
            shrunk = _shrink(covariance, count[m])
            precision[m] = np.linalg.inv(shrunk)
            typical[m] = np.trace(precision[m] @ covariance)
        return Reference(count, mean, precision, typical)

    def score(self, found: Matrix) -> Matrix:
        """How strange each patient is, [N], from [N, M, F]: 1 is an average patient of the reference, larger is stranger.

        The root of the squared Mahalanobis distance, each modality's over what is typical of it, averaged over those that he has.
        NaN where none of them is known to the reference.
        """
        known = np.isfinite(found).all(2) & (self.count >= MIN_COUNT)
        difference = np.where(known[..., None], found - self.mean, 0.0)
        squared = np.einsum("nmf,mfg,nmg->nm", difference, self.precision, difference) / self.typical
        return np.sqrt(squared.sum(1) / np.where(known.any(1), known.sum(1), np.nan))


def _shrink(covariance: Matrix, count: float) -> Matrix:
    """Towards its own diagonal, by oracle approximating shrinkage (Chen et al., IEEE TSP 2010, eq. 23) of the correlations."""
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-8))
    correlation = covariance / np.outer(scale, scale)
    width = len(scale)
    square = np.mean(correlation**2)
    level = np.trace(correlation) / width
    over = (count + 1.0) * (square - level**2 / width)
    shrinkage = 1.0 if over <= 0 else min(1.0, (square + level**2) / over)
    mixed = (1.0 - shrinkage) * correlation + shrinkage * level * np.eye(width)
    return np.asarray(mixed * np.outer(scale, scale))


def histogram(scores: Matrix) -> NDArray[np.float32]:
    """Scores in the bins of `SCORE_EDGES`, [K]; a score that is not a number is in none."""
    return np.histogram(scores[~np.isnan(scores)], SCORE_EDGES)[0].astype(np.float32)


def threshold(counts: NDArray[np.float32], rate: float) -> float:
    """The score above which at most `rate` of patients from the same distribution lie, in the mean over calibration draws.

    The ceil((n + 1) (1 - rate))-th smallest of n scores (split conformal: Lei et al., JASA 2018), rounded up to its
    bin's edge. With fewer than 1 / rate - 1 patients no score is known to be rare enough: infinite, nobody is flagged.

    Args:
        counts: [K], histograms as `histogram` gives them, added up.
    """
    n = float(counts.sum())
    rank = np.ceil((n + 1.0) * (1.0 - rate) - 1e-9)
    if n < 1 or rank > n:
        return float("inf")
    return float(SCORE_EDGES[1 + int(np.searchsorted(np.cumsum(counts.astype(np.float64)), rank))])
