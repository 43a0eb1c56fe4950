"""Peers of our segmentation: what they are handed, that they learn, and what makes the second one another kind."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.config.run import RunConfig
from common.data.dataset import SiteData
from simulation.peers import train
from simulation.peers.peer import Peer
from simulation.peers.registry import PEERS, UNET
from simulation.peers.transunet import TransUNet
from tests.common.training.test_segmentation_rounds import TERMS, config_of, site_of

TRAINING: dict[str, Any] = {
    "batch_size": 4,
    "local_epochs": 5,
    "head_learning_rate": 5e-3,
    "slices_per_step": 2,
    "precision": "fp32",
}


def settings(**training: Any) -> RunConfig:
    return config_of(objective={"local_crops": 0, "terms": TERMS}, training=TRAINING | training, federation={"rounds": 2})


def dice_of(model: nn.Module, site: SiteData, config: RunConfig) -> float:
    batch = site.take([0, 1, 2], lesions=True)
    with torch.no_grad():
        said = train.as_network(model, config)(batch.x[:, 0], batch.present) > 0
    assert batch.lesions is not None
    truth = batch.lesions[:, 0] > 0.5
    return 2 * float((said & truth).sum()) / float(said.sum() + truth.sum())


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_a_peer_takes_as_many_steps_and_learns(peer: Peer) -> None:
    config, site = settings(), site_of(10)
    assert train.steps_of(config, 10) == 2 * 5 * 3
    before, after = train.untrained(peer, config).eval(), train.train_peer(peer, site, config)
    assert dice_of(after, site, config) > max(0.7, dice_of(before, site, config) + 0.3)


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_a_peer_trains_twice_the_same(peer: Peer) -> None:
    config, site = settings(local_epochs=1), site_of(4)
    one, two = (train.train_peer(peer, site, config).state_dict() for _ in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_all_peers_see_the_same_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a difference between two of them is one of draws, too."""
    seen = list[list[Tensor]]()
    views: Callable[..., Any] = vars(train)["global_views"]

    def recorded(*given: Any) -> Any:
        found = views(*given)
        seen[-1].append(found.x)
        return found

    monkeypatch.setattr(train, "global_views", recorded)
    for peer in PEERS.values():
        seen.append([])
        train.train_peer(peer, site_of(5), settings(local_epochs=1))
    first, *others = seen
    assert len(first) == train.steps_of(settings(local_epochs=1), 5) == 4
    assert all(torch.equal(a, b) for one in others for a, b in zip(first, one, strict=True))


@pytest.mark.parametrize("size", [32, 50])
def test_a_logit_for_each_pixel(size: int) -> None:
    network = TransUNet().network(3, size)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 1, size, size)


def test_the_transformer_reads_the_coarsest_map_and_all_skips_come_from_the_encoder() -> None:
    """Of 32 pixels, halved three times: 16 places; each of the four resolutions has a part in the answer."""
    torch.manual_seed(1)
    network = TransUNet(channels=(4, 8, 16, 24)).network(1, 32).eval()
    tokens = list[Tensor]()
    assert isinstance(network.transformer, nn.Module)
    network.transformer.register_forward_hook(lambda _, __, said: tokens.append(said))
    image = torch.rand(1, 1, 32, 32)
    whole = network(image)
    assert tokens[0].shape == (1, 16, 24)
    assert isinstance(network.encoder, nn.ModuleList)
    for place, block in enumerate(network.encoder):
        lost = block.register_forward_hook(lambda _, __, said: torch.zeros_like(said))
        assert not torch.allclose(network(image), whole), place
        lost.remove()


def test_a_token_of_one_corner_reaches_the_other() -> None:
    """What the U-Net's convolutions of the coarsest map cannot do: that is why there is a transformer."""
    torch.manual_seed(1)
    network = TransUNet().network(1, 32).eval()
    assert isinstance(network.transformer, nn.Module)
    tokens = torch.rand(1, 16, 128, requires_grad=True)
    network.transformer(tokens)[0, 0].square().sum().backward()
    assert tokens.grad is not None
    assert float(tokens.grad[0, -1].abs().sum()) > 0


def test_the_first_peer_is_the_one_of_reports() -> None:
    assert PEERS["unet"] is UNET
    assert UNET.name == "monai_unet"  # in `baselines` of reports that exist
    assert len({peer.name for peer in PEERS.values()}) == len(PEERS)
