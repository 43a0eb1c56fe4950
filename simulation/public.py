"""Public features: what phantoms teach of pooling, mean and directions, so that private runs need not pay for it.

Each phantom has a scanner of its own (`simulation.phantom.parts`). Their tumours teach the pooling's queries; no class is told.
N patients, S slices, M modalities, P patches, D width, E = (1 + M) D.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.run import RunConfig
from common.errors import ConfigError
from common.models.arrays import save_arrays
from common.models.build import build_model
from common.models.embedding import patient_embedding
from common.models.multimodal import MultiModalViT
from common.models.public_features import CENTRE, PROJECTION, QUERY
from common.pooling.guided import Guided
from simulation.phantom.parts import FIRST_OF_TUMOUR, Dissected, dissect
from simulation.tissue import Progress, simulate

MOST = 64  # directions that the file holds
BATCH = 16


def make_public(config: RunConfig, patients: int, seed: int, out: Path, progress: Progress) -> None:
    """Simulate public patients and write what they teach.

    Args:
        config: of the runs that will use it; data, backbone and pooling are read.
        patients: how many.
        seed: of the phantoms; never one that is evaluated on.
        out: the safetensors file.
        progress: called with how far the phantoms and their features are.

    Raises:
        ConfigError: a pooling that private runs could not have.
        WeightsError: weights that cannot be had.
    """
    if config.model.pooling.fits:
        raise ConfigError(
            f'model.pooling = "{config.model.pooling.name}" is fitted to masks in a run. Set model.pooling = "taught".'
        )
    model = build_model(config, public="nowhere").eval()
    found = simulate(patients, partial(dissect, seed=seed, data=config.data, patch=model.patch_size), progress)
    arrays = learned(model, found, progress)
    about = {"backbone": model.backbone_sha256, "config": config.to_json(), "phantoms": f"{patients} of seed {seed}"}
    save_arrays(out, arrays, about)


def learned(model: MultiModalViT, found: list[Dissected], progress: Progress) -> dict[str, NDArray[np.float32]]:
    """The three arrays of `common.models.public_features`."""
    M, width = found[0].images.shape[1], model.width
    query = torch.zeros(M, width)
    if isinstance(model.pooling, Guided):
        query = _query(model, model.pooling, found, progress)
        model.pool["query"].data.copy_(query)
    embeddings = np.concatenate([_embeddings(model, some) for some in _batches(found, progress, "features")])
    mean = embeddings.mean(0)
    _, _, directions = np.linalg.svd(embeddings - mean, full_matrices=False)
    return {
        QUERY: query.numpy(),
        CENTRE: (mean / width**0.5).reshape(1 + M, width).astype(np.float32),
        PROJECTION: directions[:MOST].astype(np.float32),
    }


def _query(model: MultiModalViT, pooling: Guided, found: list[Dissected], progress: Progress) -> Tensor:
    """[M, D], fitted to all patients' tumours together."""
    total = torch.zeros(())
    for some in _batches(found, progress, "queries"):
        tumour = torch.from_numpy(np.stack([one.parts[:, FIRST_OF_TUMOUR:].astype(np.float32).sum(1) for one in some]))
        patches, present = _features(model, some)[1:]
        total = total + pooling.sums(patches.float(), present, tumour.flatten(2))
    return pooling.solve(total, dict(model.pool))["query"]


def _embeddings(model: MultiModalViT, some: list[Dissected]) -> NDArray[np.float64]:
    """[B, E], before any front."""
    cls, patches, present = _features(model, some)
    with torch.no_grad():
        found = patient_embedding(cls, patches, present, model.token_weights(patches))
    return found.double().numpy()


def _features(model: MultiModalViT, some: list[Dissected]) -> tuple[Tensor, Tensor, Tensor]:
    """CLS [B, S, D], patches [B, S, M, P, D], present [B, M]: all of them."""
    x = torch.from_numpy(np.stack([one.images for one in some])).float()
    present = torch.ones(len(x), x.shape[2], dtype=torch.bool)
    with torch.no_grad():
        return *model.features(x, present), present


def _batches(found: list[Dissected], progress: Progress, what: str) -> Iterator[list[Dissected]]:
    for start in range(0, len(found), BATCH):
        progress(what, start, len(found))
        yield found[start : start + BATCH]
