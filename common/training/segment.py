"""A model's answer for each voxel of a patient: windows slide over every slice, and the volume is put together again.

X, Y, Z voxels, M modalities, n windows of H x W pixels.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from common.data.volumes import Array
from common.data.whole import Whole
from common.models.trained_model import TrainedModel
from common.training.device import autocast, choose_device, place

OVERLAP = 0.25  # of neighbouring windows; where they overlap, those nearer to a window's middle count more
AT_ONCE = 16  # windows

Network = Callable[[Tensor, Tensor], Tensor]  # images [n, M, H, W], present [n, M] to logits [n, H, W]


def as_network(trained: TrainedModel) -> Network:
    """The model with its trained arrays, on the device that was chosen."""
    device, model = choose_device(), trained.model
    place(model, device)
    arrays = {name: torch.tensor(array, device=device) for name, array in trained.arrays.items()}

    def logits(images: Tensor, present: Tensor) -> Tensor:
        with autocast(device, trained.config.training.precision):
            found: Tensor = functional_call(model, arrays, (images.unsqueeze(1), present), {"dense": True}).dense[:, 0]
        return found.float()

    return logits


@torch.no_grad()
def segment(network: Network, whole: Whole, size: int, *, use: NDArray[np.bool_] | None = None) -> Array:
    """The probability that each voxel is tumour, [X, Y, Z], by MONAI's sliding windows (`sliding_window_inference`).

    Args:
        network: of windows.
        whole: the patient's slices.
        size: edge of a window in pixels.
        use: [M], the modalities that the network may use; None: all that the patient has.
    """
    from monai.inferers.utils import sliding_window_inference  # noqa: PLC0415  MONAI takes seconds; commands import this file

    here = torch.from_numpy(whole.present if use is None else whole.present & use).to(choose_device())

    def probabilities(windows: Tensor) -> Tensor:
        return network(windows, here.expand(len(windows), -1)).sigmoid().unsqueeze(1)

    images = torch.from_numpy(whole.images).to(choose_device()) * here.view(1, -1, 1, 1)
    found = sliding_window_inference(images, (size, size), AT_ONCE, probabilities, overlap=OVERLAP, mode="gaussian")
    assert isinstance(found, Tensor)
    return whole.to_volume(found[:, 0].cpu().numpy())
