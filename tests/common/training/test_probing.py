"""What the head sees in its own rounds."""

from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from common.config.run import config_from_table
from common.data.dataset import SiteData
from common.models.multimodal import MultiModalViT, Output
from common.models.trained_model import TrainedModel
from common.training import probing
from common.training.probing import COPIES


class Recorder(nn.Module):
    """A model whose embedding is what it was shown."""

    def forward(self, x, present, masks=None, read=None):
        return Output(present.float(), torch.zeros(len(x), 3), torch.zeros(0, 3))


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_every_patient_is_seen_whole_once_and_lacking_something_else(chance):
    config = config_from_table({"objective": {"modality_dropout": chance}, "evaluation": {"batch_size": 4}})
    present = np.random.default_rng(0).random((10, 4)) < 0.7
    present[~present.any(1), 0] = True
    site = SiteData("a", tuple("abcdefghij"), np.zeros((10, 1, 4, 2, 2), np.float16), present, np.arange(10) % 3, "key")
    trained = TrainedModel(cast(MultiModalViT, Recorder()), {}, config)
    seen, labels = probing._embed(trained, site, torch.Generator().manual_seed(1))
    copies = COPIES if chance else 1
    assert labels.tolist() == (np.arange(10) % 3).tolist() * copies
    shown = seen.bool().view(copies, 10, 4).numpy()
    assert (shown[0] == present).all()
    several = present.sum(1) > 1
    for copy in shown[1:]:
        assert copy.any(1).all()
        assert not (copy & ~present).any()
        assert (copy.sum(1) < present.sum(1))[several].all()
    if chance:
        assert len({copy.tobytes() for copy in shown}) == copies


class Showing(nn.Module):
    """A model whose embedding tells what it was shown: modalities, slices, share of masked patches, mean intensity."""

    patch_size = 4

    def forward(self, x, present, masks=None, read=None):
        hidden = torch.zeros(len(x)) if masks is None else masks.float().mean((1, 2, 3))
        told = [present.float(), torch.full((len(x), 1), float(x.shape[1])), hidden[:, None], x.mean((1, 2, 3, 4))[:, None]]
        return Output(torch.cat(told, 1), torch.zeros(len(x), 3), torch.zeros(0, 3))


def test_views_of_head_rounds_are_masked_crops_of_some_slices_drawn_anew():
    table = {"training": {"head_views": 6}, "evaluation": {"batch_size": 4}, "objective": {"modality_dropout": 0.5}}
    config = config_from_table(table)
    images = np.random.default_rng(0).random((10, 3, 4, 8, 8)).astype(np.float16)
    site = SiteData("a", tuple("abcdefghij"), images, np.ones((10, 4), bool), np.arange(10) % 3, "key")
    trained = TrainedModel(cast(MultiModalViT, Showing()), {}, config)

    def drawn(seed):
        return probing._embed_views(trained, site, torch.Generator().manual_seed(seed))

    seen, labels = drawn(1)
    assert labels.tolist() == (np.arange(10) % 3).tolist() * 7
    shown = seen.view(7, 10, -1)
    assert (shown[0, :, :4] == 1).all()
    assert (shown[0, :, 4] == 3).all()
    assert (shown[0, :, 5] == 0).all()
    views = shown[1:]
    assert set(views[..., 4].unique().tolist()) == {1.0, 2.0, 3.0}
    assert (views[..., 5] > 0).any()
    assert (views[..., :4].sum(-1) >= 1).all()
    assert (views[..., :4] == 0).any()
    assert len({tuple(view.flatten().tolist()) for view in views}) == 6
    assert torch.equal(drawn(1)[0], seen)
    assert not torch.equal(drawn(2)[0], seen)
