"""The one inference loop over patients: devices, precision and batch size are decided here.

N patients of a site, n rows that are asked, S slices, M modalities, Q clinical covariates.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from common.data.dataset import SiteData
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.training.device import and_its_like, autocast, choose_device
from common.training.replicas import Replicas, at_once, moved

Function = Callable[..., Any]  # of MultiModalViT, Tensor, Tensor, Tensor and, where there is one, what belongs to the batch


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
    asked: bool = False,
) -> Iterator[Any]:
    """What `function` makes of each batch, in the order of the rows, on the device that was chosen.

    Where there are several such devices, each takes every so manyth batch, at the same time: the same batches as on one.

    Args:
        trained: its model is moved to the device and set to evaluation; `config.evaluation.batch_size` patients go at once.
        patients: of whom the rows are.
        function: of the model with the trained arrays inside, x [B, S, M, H, W], present [B, M] and covariates [B, Q]. Nothing
            may hang on the order of its calls.
        rows: [n], patients, who may come several times; None: everybody once.
        present: [n, M], the modalities that the model may use of each row; None: all that the patient has.
        asked: whether `function` is told the batch's rows too, as a list.
    """
    config = trained.config
    rows = np.arange(len(patients)) if rows is None else rows
    size = config.evaluation.batch_size
    batches = [slice(start, start + size) for start in range(0, len(rows), size)]
    model = Replicas(trained.model, and_its_like(choose_device())[: max(1, len(batches))])
    applied = [_Applied(one, function) for one in model.models]
    arrays = [{f"model.{n}": torch.tensor(a, device=device) for n, a in trained.arrays.items()} for device in model.devices]

    def of_batch(place: int, batch: slice) -> Any:
        some, device = patients.take(rows[batch]), model.devices[place]
        use = some.present if present is None else torch.as_tensor(present[batch])
        given = (some.x.to(device), use.to(device), some.covariates.to(device), *([rows[batch].tolist()] if asked else []))
        with torch.no_grad(), autocast(device, config.training.precision):
            return functional_call(applied[place], arrays[place], given)

    for start in range(0, len(batches), len(model.devices)):
        calls = [partial(of_batch, *each) for each in enumerate(batches[start : start + len(model.devices)])]
        found = at_once(calls, model.devices)
        yield from found if len(model.devices) == 1 else moved(found, model.devices[0])


class _Applied(nn.Module):
    """A function of the model as a module: `functional_call` lends arrays to modules only."""

    def __init__(self, model: MultiModalViT, function: Function) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, x: Tensor, present: Tensor, covariates: Tensor, *rows: list[int]) -> Any:
        """One batch."""
        return self.function(self.model, x, present, covariates, *rows)
