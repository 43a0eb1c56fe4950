"""What the head sees in its own rounds."""

from typing import cast

import numpy as np
import pytest
import torch

from common.config.run import config_from_table
from common.data.dataset import SiteData
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.training import probing
from common.training.probing import COPIES


@pytest.fixture(autouse=True)
def _embeddings_tell_what_was_shown(monkeypatch):
    """In the place of embeddings."""

    def shown(trained, patients, copies):
        return torch.from_numpy(copies).float()

    monkeypatch.setattr(probing, "embed_subsets", shown)


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_every_patient_is_seen_whole_once_and_lacking_something_else(chance):
    config = config_from_table({"objective": {"modality_dropout": chance}, "evaluation": {"batch_size": 4}})
    present = np.random.default_rng(0).random((10, 4)) < 0.7
    present[~present.any(1), 0] = True
    site = SiteData("a", tuple("abcdefghij"), np.zeros((10, 1, 4, 2, 2), np.float16), present, np.arange(10) % 3, "key")
    trained = TrainedModel(cast(MultiModalViT, None), {}, config)
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


def test_each_head_round_has_views_of_its_own(monkeypatch):
    config = config_from_table({"training": {"head_views": 3, "head_rounds": 2}})
    site = SiteData("a", ("x", "y"), np.zeros((2, 1, 4, 2, 2), np.float16), np.ones((2, 4), bool), np.array([2, 1]), "key")
    monkeypatch.setattr(
        probing, "embed_views", lambda _, patients, numbers: torch.tensor([[[n] * 4] * 2 for n in numbers]).float()
    )
    trained = TrainedModel(cast(MultiModalViT, None), {}, config)
    for number in (1, 2):
        seen, labels = probing._embed_views(trained, site, number)
        assert labels.tolist() == [2, 1] * 4
        assert (seen[:2] == 1).all()  # whole: all modalities
        assert seen[2:, 0].tolist() == [n for n in range(3 * number - 3, 3 * number) for _ in range(2)]
