"""A peer trained from scratch, beside a run that segments: the same patients and windows, as many steps of as many slices.

All peers see the same windows in the same order. A modality that a patient lacks is a channel of zeros. n windows, M modalities,
H x W pixels.
"""

import math

import torch
from torch import Tensor, nn

from client.round.train import site_seed
from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.decoders.decoder import DECODER
from common.objectives.segmentation import Segmentation, cross_entropy, dice_loss
from common.training.device import autocast, choose_device
from common.training.local import batches_of
from common.training.optimizer import make_optimizer, set_rates
from common.training.plain import descend
from common.training.segment import Network
from common.training.views import GLOBAL_VIEWS, Views, global_views
from simulation.peers.peer import Peer

DRAWS = "monai_unet"  # of windows and their order: the name of the first peer, whose figures stay


def untrained(peer: Peer, config: RunConfig) -> nn.Module:
    """Its network, from `config.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return peer.network(len(config.data.modalities), config.data.size)


def steps_of(config: RunConfig, patients: int) -> int:
    """Of the whole run, as pooled training would take them."""
    training = config.training
    return config.federation.rounds * training.local_epochs * math.ceil(patients / training.batch_size)


def train_peer(peer: Peer, training: SiteData, config: RunConfig) -> nn.Module:
    """Train on the patients who have a drawn mask, by the run's own schedule, rates of a decoder, views and loss.

    Args:
        peer: whose network it is.
        training: with `lesions`.
        config: of the run.
    """
    device, drawn = choose_device(), training.select(training.labelled)
    model = untrained(peer, config).to(device).train()
    [term] = [one for one in config.objective.terms if isinstance(one, Segmentation)]
    parameters = {DECODER + name: value for name, value in model.named_parameters()}
    optimizer, total, done = make_optimizer(parameters, config), steps_of(config, len(drawn)), 0
    for number in range(1, config.federation.rounds + 1):
        generator = torch.Generator().manual_seed(site_seed(config.seed, DRAWS, number))
        for batch in batches_of(drawn, config, generator):
            done += 1
            set_rates(optimizer, config, done / total)
            seen = global_views(batch._replace(x=batch.x.to(device)), GLOBAL_VIEWS, config.objective, config.data.size, generator)
            with autocast(device, config.training.precision):
                logits, truth = _views(model, seen)
            loss = term.dice * dice_loss(logits, truth) + (1 - term.dice) * cross_entropy(logits, truth)
            descend(optimizer, loss, config.training.gradient_clip)
    return model.eval()


def _views(model: nn.Module, seen: Views) -> tuple[Tensor, Tensor]:
    """Logits and truth, [V, B, S, H, W]. Blocks that a student would not see are seen here; dropped modalities are not."""
    assert seen.lesions is not None
    rows, slices = seen.x.shape[:2]
    shape = (GLOBAL_VIEWS, rows // GLOBAL_VIEWS, slices, *seen.x.shape[-2:])
    images = seen.x * seen.present.view(rows, 1, -1, 1, 1)
    return model(images.flatten(0, 1))[:, 0].float().view(shape), seen.lesions.view(shape)


def as_network(model: nn.Module, config: RunConfig) -> Network:
    """For `common.training.segment.segment`."""

    def logits(images: Tensor, present: Tensor) -> Tensor:
        with autocast(choose_device(), config.training.precision):
            found: Tensor = model(images * present.view(*present.shape, 1, 1))[:, 0]
        return found.float()

    return logits
