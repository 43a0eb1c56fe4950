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
