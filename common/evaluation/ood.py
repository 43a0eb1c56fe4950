"""Out of distribution: how unlike the federation's patients a patient is, from his images and what the backbone says of them.

Gaussians (Lee et al., NeurIPS 2018, eq. 1 and 2, with one class) on four kinds of features, each modality's or pair's its own:

- image: contrast, sharpness, noise (`common.evaluation.image_statistics`);
- frozen: what the untouched backbone says of the modality;
- adapted: what the trained one says of it;
- pair: how well two modalities agree (`common.evaluation.modality_agreement`).

Each modality runs through the backbones by itself, so nothing said of it depends on which others there are.

The Gaussians travel as counts, sums and sums of outer products, which add up over sites, and from which a site can take its own
out again. **What they tell about patients**: the moments of one patient are his features; those of a few bound them. They are
no pictures, but who holds the backbone can test whether a patient whose images he has is among them. So they leave a site only
where its policy says `share_calibration`, and `min_patients` bounds how few they may be of.

N patients, M modalities, D width, F features, R Gaussians of one kind, K bins.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from common.config import RunConfig
from common.data.dataset import SiteData
from common.evaluation.image_statistics import STATISTICS, image_statistics
from common.evaluation.modality_agreement import AGREEMENTS, modality_agreement
from common.evaluation.shrinkage import shrunk_covariance
from common.models.arrays import Arrays
from common.models.multimodal import MultiModalViT
from common.training.device import autocast, choose_device
from common.training.predict import frozen_features

Matrix = NDArray[np.float64]

PROJECTED = 32  # numbers kept of the frozen features, and of the adapted ones
ALONE = {"image": STATISTICS, "frozen": PROJECTED, "adapted": PROJECTED}  # features of a modality by itself
MIN_COUNT = 8  # patients behind a Gaussian, below which it says nothing
POWER = 8.0  # of distances in their mean: near the largest, so that one broken image among four is seen
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
        [N, M, F], NaN where a modality is absent. F: the features of the modality alone, then its agreement with each modality.
    """
    here = patients.present if present is None else np.logical_and(patients.present, present)
    images = [_image_features(one.astype(np.float64), known) for one, known in zip(patients.images, here, strict=True)]
    backbone = [_project(frozen_features(model, patients, config)), _project(_adapted(model, arrays, patients, config))]
    image, agreement = np.split(np.stack(images), [STATISTICS], axis=2)
    return np.asarray(np.where(here[..., None], np.concatenate([image, *backbone, agreement], axis=2), np.nan))


def _image_features(images: Matrix, here: NDArray[np.bool_]) -> Matrix:
    """[S, M, H, W] to [M, STATISTICS + M AGREEMENTS]."""
    alone, modalities = ALONE["image"], len(here)
    found = np.full((modalities, alone + modalities * AGREEMENTS), np.nan)
    known = np.flatnonzero(here)
    found[known, :alone] = image_statistics(images[:, known])
    pairs = found[:, alone:].reshape(modalities, modalities, AGREEMENTS)
    for one, other in combinations(known, 2):
        pairs[one, other] = pairs[other, one] = modality_agreement(images[:, one], images[:, other])
    found[:, alone:] = pairs.reshape(modalities, -1)
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


def _kinds(found: Matrix) -> dict[str, Matrix]:
    """From [N, M, F] to [N, R, f] of each kind; R is M, or the number of pairs. Two or more modalities make pairs."""
    modalities = found.shape[1]
    *alone, agreement = np.split(found, np.cumsum(list(ALONE.values())), axis=2)
    kinds = dict(zip(ALONE, alone, strict=True))
    one, other = np.triu_indices(modalities, 1)
    if len(one):
        kinds["pair"] = agreement.reshape(len(found), modalities, modalities, AGREEMENTS)[:, one, other]
    return kinds


def moments_like(config: RunConfig) -> Arrays:
    """The moments of nobody: what names and shapes a site's moments have."""
    m = len(config.data.modalities)
    return moments(np.zeros((0, m, sum(ALONE.values()) + m * AGREEMENTS)))


def moments(found: Matrix) -> Arrays:
    """Of each kind the count [R], sum [R, f] and sum of outer products [R, f, f], over the patients in whom it is known.

    Args:
        found: [N, M, F], as `features` gives them.
    """
    sums = {}
    for kind, some in _kinds(found).items():
        here = _known(some)
        x = np.where(here[..., None], some, 0.0)
        sums[f"ood.{kind}.count"] = here.sum(0).astype(np.float32)
        sums[f"ood.{kind}.sum"] = x.sum(0).astype(np.float32)
        sums[f"ood.{kind}.outer"] = np.einsum("nrf,nrg->rfg", x, x).astype(np.float32)
    return sums


def _known(x: Matrix) -> NDArray[np.bool_]:
    """[N, R, f] to [N, R]: whether all is finite."""
    return np.asarray(np.isfinite(x).all(2))


def add(*several: Arrays) -> Arrays:
    """The moments of several sites together; of one or more."""
    names = several[0]
    return {name: np.asarray(sum(one[name].astype(np.float64) for one in several), np.float32) for name in names}


def subtract(everyone: Arrays, own: Arrays) -> Arrays:
    """The moments of everyone but one site."""
    return {name: (array.astype(np.float64) - own[name]).astype(np.float32) for name, array in everyone.items()}


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Those of one kind of features."""

    known: NDArray[np.bool_]  # [R], enough patients
    mean: Matrix  # [R, f]
    precision: Matrix  # [R, f, f]
    typical: Matrix  # [R], the mean squared distance of the patients behind it

    @staticmethod
    def fit(count: Matrix, total: Matrix, outer: Matrix) -> "Gaussians":
        """From sums, the covariance shrunk as far as few patients ask for."""
        safe = np.maximum(count, 1.0)[:, None]
        mean = total / safe
        covariance = outer / safe[..., None] - mean[:, :, None] * mean[:, None, :]
        precision, typical = np.zeros_like(outer), np.ones_like(count)
        for r in np.flatnonzero(count >= MIN_COUNT):
            precision[r] = np.linalg.inv(shrunk_covariance(covariance[r], mean[r], float(count[r])))
            typical[r] = max(np.trace(precision[r] @ covariance[r]), 0.1 * mean.shape[1])
        return Gaussians(count >= MIN_COUNT, mean, precision, typical)

    def squared(self, x: Matrix) -> Matrix:
        """Squared Mahalanobis distances over what is typical, [N, R]; NaN where the features or the Gaussian are not known."""
        difference = x - self.mean
        squared = np.einsum("nrf,rfg,nrg->nr", difference, self.precision, difference) / self.typical
        return np.asarray(np.where(_known(x) & self.known, squared, np.nan))


@dataclass(frozen=True, eq=False)
class Reference:
    """What patients of the federation are like."""

    gaussians: dict[str, Gaussians]  # by kind

    @staticmethod
    def fit(sums: Arrays) -> "Reference":
        """From moments, as `moments` gives them or added up."""
        kinds = sorted({name.split(".")[1] for name in sums})
        parts = ("count", "sum", "outer")
        return Reference(
            {kind: Gaussians.fit(*(sums[f"ood.{kind}.{part}"].astype(np.float64) for part in parts)) for kind in kinds}
        )

    def score(self, found: Matrix) -> Matrix:
        """How strange each patient is, [N], from [N, M, F]: about 1 for the reference's own, larger is stranger.

        The power mean of the Mahalanobis distances of all that is known of a patient, each over the one that is typical, so that
        patients with few modalities compare with those with many. NaN where nothing is known.
        """
        kinds = _kinds(found)
        squared = np.concatenate([gaussians.squared(kinds[kind]) for kind, gaussians in self.gaussians.items()], axis=1)
        known = np.isfinite(squared)
        total = np.where(known, squared, 0.0) ** (POWER / 2)
        return np.asarray((total.sum(1) / np.where(known.any(1), known.sum(1), np.nan)) ** (1.0 / POWER))


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
    """
    n = float(counts.sum())
    rank = np.ceil((n + 1.0) * (1.0 - rate) - 1e-9)
    if n < 1 or rank > n:
        return float("inf")
    return float(SCORE_EDGES[1 + int(np.searchsorted(np.cumsum(counts.astype(np.float64)), rank))])
