"""The one inference loop over patients: device, precision and batch size are decided here.

N patients of a site, n rows that are asked, S slices, M modalities, Q clinical covariates.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from common.data.dataset import SiteData
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.training.device import autocast, choose_device, place

Function = Callable[[MultiModalViT, Tensor, Tensor, Tensor], Any]


def embed(model: MultiModalViT, x: Tensor, present: Tensor, _: Tensor | None = None) -> Tensor:
    """The patients' embeddings [B, E] in float32, of their images alone."""
    embedding: Tensor = model(x, present).embedding
    return embedding.float()


def forward_batches(
    trained: TrainedModel,
    patients: SiteData,
    function: Function,
    *,
    rows: NDArray[np.int64] | None = None,
    present: NDArray[np.bool_] | None = None,
) -> Iterator[Any]:
    """What `function` makes of each batch, in the order of the rows, on the device that was chosen.

    Args:
        trained: its model is moved to the device and set to evaluation; `config.evaluation.batch_size` patients go at once.
        patients: of whom the rows are.
        function: of the model with the trained arrays inside, x [B, S, M, H, W], present [B, M] and covariates [B, Q].
        rows: [n], patients, who may come several times; None: everybody once.
        present: [n, M], the modalities that the model may use of each row; None: all that the patient has.
    """
    device, config = choose_device(), trained.config
    place(trained.model, device)
    applied = _Applied(trained.model, function)
    arrays = {f"model.{name}": torch.tensor(array, device=device) for name, array in trained.arrays.items()}
    rows = np.arange(len(patients)) if rows is None else rows
    for start in range(0, len(rows), config.evaluation.batch_size):
        batch = slice(start, start + config.evaluation.batch_size)
        some = patients.take(rows[batch])
        use = some.present if present is None else torch.as_tensor(present[batch])
        with torch.no_grad(), autocast(device, config.training.precision):
            result = functional_call(applied, arrays, (some.x.to(device), use.to(device), some.covariates.to(device)))
        yield result


class _Applied(nn.Module):
    """A function of the model as a module: `functional_call` lends arrays to modules only."""

    def __init__(self, model: MultiModalViT, function: Function) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, x: Tensor, present: Tensor, covariates: Tensor) -> Any:
        """One batch."""
        return self.function(self.model, x, present, covariates)
