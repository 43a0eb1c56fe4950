"""Evidence for a prediction: by modality (leave one out) and by place (which patch tokens contribute to the predicted class).

Both are about the model and say nothing of the tumour. *By modality* runs the model again without each one, as if the patient
had never had it. *By place* leaves each patch token out of the last pooling, in which the others keep their weights next
to each other, and asks how far the winning class's logit falls: exact for the head, but before that the tokens have attended to
each other, so that a patch also holds what it saw elsewhere. It is no segmentation.

N patients, S slices, M modalities, P patches of h x w, D width, C classes, K prototypes,
Q clinical covariates.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.data.dataset import SiteData
from common.evaluation.calibration.calibration import UNSCALED, Scaling
from common.models.multimodal import Alone, MultiModalViT
from common.models.trained_model import TrainedModel
from common.training.forward import forward_batches
from common.training.predict import predict_subsets
from common.training.subsets import Subset

Floats = NDArray[np.float64]


def modality_evidence(trained: TrainedModel, patients: SiteData, probabilities: Floats, *, scaling: Scaling = UNSCALED) -> Floats:
    """How far the predicted class's probability falls when one modality is left out.

    Args:
        trained: a model and its arrays.
        patients: N, with M modalities.
        probabilities: [N, C], calibrated, of all modalities.
        scaling: of the calibration, for the answers with one modality less.

    Returns:
        [N, M]: positive where the modality speaks for the predicted class; NaN where it is absent, or the only one.
    """
    rows, left_out = np.nonzero(patients.present & (patients.present.sum(1, keepdims=True) > 1))
    evidence = np.full(patients.present.shape, np.nan)
    if len(rows):
        winning, wanted = probabilities.argmax(1), dict[int, list[Subset]]()
        for row, column in zip(rows.tolist(), left_out.tolist(), strict=True):
            wanted.setdefault(row, []).append(tuple((patients.present[row] & (np.arange(len(evidence[row])) != column)).tolist()))
        for row, subset, found in predict_subsets(trained, patients, wanted):
            [missing] = np.flatnonzero(patients.present[row] & ~np.array(subset))
            without = scaling.apply(found[None])[0]
            evidence[row, missing] = probabilities[row, winning[row]] - without[winning[row]]
    return evidence


def place_evidence(
    trained: TrainedModel, patients: SiteData, *, scaling: Scaling = UNSCALED, alone: Alone | None = None
) -> tuple[Floats, NDArray[np.float32]]:
    """The answer, and how far the winning class's logit falls when one patch token is left out of its modality's mean.

    Args:
        trained: a model and its arrays.
        patients: N.
        scaling: of the calibration: its class offsets have a part in which class wins.
        alone: of these patients (`common.training.below`), where it is known.

    Returns:
        Uncalibrated probabilities [N, C], as `predict` gives them, and contributions [N, S, M, h, w]: positive where the patch
        supports the predicted class, 0 where the modality is absent.
    """
    config = trained.config
    explain = _Explain(len(config.task.classes), config.objective.student_temperature, scaling, alone)
    answers, places = [], []
    for logits, contributions in forward_batches(trained, patients, explain):
        answers.append(logits.softmax(-1).cpu().numpy())
        places.append(contributions.cpu().numpy())
    return np.concatenate(answers), np.concatenate(places)


@dataclass(frozen=True)
class _Explain:
    """Class logits of a batch, with patch contributions beside them."""

    classes: int
    temperature: float
    scaling: Scaling
    alone: Alone | None = None

    def __call__(self, model: MultiModalViT, x: Tensor, present: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, S, M, H, W], present [B, M], covariates [B, Q] to logits [B, C] and contributions [B, S, M, h, w]."""
        cls, patches = model.features(x, present) if self.alone is None else model.together(self.alone, present)
        logits = self._logits(model, model.embed(cls, patches, present), known)
        with torch.autocast(x.device.type, enabled=False):  # a patch's part is smaller than bf16 can tell
            rows = [self._places(model, cls[b].float(), patches[b].float(), present[b], known[b]) for b in range(len(x))]
        side = math.isqrt(patches.shape[3])
        return logits, torch.stack(rows).view(*patches.shape[:3], side, side)

    def _places(self, model: MultiModalViT, cls: Tensor, patches: Tensor, present: Tensor, known: Tensor) -> Tensor:
        """One patient's contributions [S, M, P]; cls [S, D], patches [S, M, P, D], present [M], covariates [Q]."""
        S, M, P, D = patches.shape
        weights = model.token_weights(patches.unsqueeze(0))
        weights = None if weights is None else weights.expand(1, S, M, P)[0]
        pooled = patches.mean((0, 2)) if weights is None else (patches * weights.unsqueeze(3)).sum((0, 2))
        means = torch.cat([cls.mean(0, keepdim=True), pooled])  # [1 + M, D]
        here = torch.cat([torch.ones_like(present[:1]), present])
        parts = nn.functional.layer_norm(means, means.shape[-1:]) * here.unsqueeze(1)
        embedding = model.reduced(parts.flatten().unsqueeze(0), present.unsqueeze(0))
        whole = self._logits(model, embedding)[0]
        said = self._logits(model, embedding, known.unsqueeze(0)).softmax(-1)
        winning = int(self.scaling.apply(said.cpu().numpy()).argmax())
        contributions = patches.new_zeros(S, M, P)
        for m in present.nonzero().flatten().tolist():
            tokens = patches[:, m].reshape(-1, D)
            rest = max(len(tokens) - 1, 1) if weights is None else _rest(weights[:, m].reshape(-1, 1))
            others = means[1 + m] + (means[1 + m] - tokens) / rest  # [S P, D], the mean without each
            changed = parts.expand(len(tokens), -1, -1).clone()
            changed[:, 1 + m] = nn.functional.layer_norm(others, (D,))
            without = model.reduced(changed.flatten(1), present.expand(len(tokens), -1))
            contributions[:, m] = (whole[winning] - self._logits(model, without)[:, winning]).view(S, P)
        return contributions

    def _logits(self, model: MultiModalViT, embedding: Tensor, known: Tensor | None = None) -> Tensor:
        """[n, E] and covariates [n, Q] to class logits [n, C]; covariates add the same with and without a patch."""
        cosines: Tensor = model.head(embedding, known)
        return cosines[:, : self.classes].double() / self.temperature


def _rest(weights: Tensor) -> Tensor:
    """The weight of all other tokens over each one's own; kept off zero, where one token would be all that there is."""
    return ((1 - weights) / weights).clamp(min=1e-3)
