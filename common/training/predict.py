"""From patients to probabilities, and to frozen features for the probe beside them.

N patients, M modalities, C classes, D width.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.arrays import Arrays
from common.models.multimodal import MultiModalViT
from common.training.device import autocast, choose_device, place


@torch.inference_mode()
def predict(
    model: MultiModalViT,
    arrays: Arrays,
    patients: SiteData,
    config: RunConfig,
    *,
    present: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Class probabilities of every patient, from all slices and all present modalities.

    Args:
        arrays: the trained arrays; the model's own are not read.
        present: [N, M], to leave out modalities that patients do have; None: as they are.

    Returns:
        [N, C], rows add up to one.
    """
    device = choose_device()
    place(model, device)
    trained = {name: torch.tensor(array, device=device) for name, array in arrays.items()}
    classes = len(config.task.classes)
    rows = []
    for chosen, x, here in _batches(patients, config.evaluation.batch_size):
        use = here if present is None else here & torch.as_tensor(present[chosen])
        with autocast(device, config.training.precision):
            output = functional_call(model, trained, (x.to(device), use.to(device)))
        logits = output.logits[:, :classes].double() / config.objective.student_temperature
        rows.append(logits.softmax(-1).cpu())
    return np.asarray(torch.cat(rows))


@torch.inference_mode()
def frozen_features(model: MultiModalViT, patients: SiteData, config: RunConfig) -> NDArray[np.float64]:
    """What the untouched backbone says of each modality by itself: CLS beside mean patch token, averaged over slices.

    Args:
        model: fresh from `build_model`: its adapters still add nothing.

    Returns:
        [N, M, 2D], NaN where a modality is absent.
    """
    device = choose_device()
    place(model, device)
    width: int = model.vit.embed_dim  # type: ignore[assignment]
    features = np.full((len(patients), len(config.data.modalities), 2 * width), np.nan)
    for chosen, x, here in _batches(patients, config.evaluation.batch_size):
        for m in range(x.shape[2]):
            rows = here[:, m]
            if rows.any():
                with autocast(device, config.training.precision):
                    found = _plain_features(model, x[rows, :, m].to(device))
                features[chosen[rows.numpy()], m] = found.float().cpu().numpy()
    return features


def _plain_features(model: MultiModalViT, x: Tensor) -> Tensor:
    """[b, S, H, W] through the plain ViT to [b, 2D]."""
    images = (x.flatten(0, 1).unsqueeze(1) - model.pixel_mean) / model.pixel_std
    vit: nn.Module = model.vit
    tokens: Tensor = vit.forward_features(images)  # type: ignore[operator]
    pooled = torch.cat([tokens[:, 0], tokens[:, vit.num_prefix_tokens :].mean(1)], dim=-1)  # type: ignore[misc]
    return pooled.view(*x.shape[:2], -1).mean(1)


def _batches(patients: SiteData, size: int) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Patients in their order."""
    for start in range(0, len(patients), size):
        chosen = np.arange(start, min(start + size, len(patients)))
        x, present, _ = patients.take(chosen)
        yield chosen, x, present
