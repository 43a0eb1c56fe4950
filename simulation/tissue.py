"""Pre-train the small backbone on what phantoms are made of: every patch token tells the tissues in its patch.

Domain randomisation, as SynthSeg does it for segmentation (Billot et al., Med Image Anal 2023;86:102789): each patient has
a scanner of their own, and intensities are changed besides, so that tokens come to mean tissue and not brightness. The truth is
the simulator's. No class is told; but whoever evaluates such a backbone on phantoms knows less of brains than ever.

B patients, S slices, M modalities, P patches, K parts and air.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from common.config.run import RunConfig
from common.errors import ConfigError
from common.files import write_atomic
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from simulation.phantom.parts import FIRST_OF_TUMOUR, PARTS, Dissected, dissect
from simulation.pretrain import backbone_arrays

Progress = Callable[[str, int, int], None]

SLICES = 2  # of a patient in a step
TUMOUR_WEIGHT = 5.0  # of a patch that is tumour: most are not
ABSENT = 0.3  # chance that a modality is taken away
DECAY, CLIP, WARM_UP = 0.05, 1.0, 50
GAMMA, GAIN, OFFSET, NOISE = 0.2, 0.1, 0.04, 0.015  # spreads of the changes to intensities from 0 to 1


def pretrain_on_tissue(config: RunConfig, patients: int, seed: int, out: Path, progress: Progress) -> None:
    """Simulate the patients, train the whole backbone on them, write it as timm's own parameter names in half precision.

    Args:
        config: with `model.adapter = "full"`; `training.local_epochs`, `batch_size` and `learning_rate` are read.
        patients: how many.
        seed: of the phantoms; never one that is evaluated on.
        out: the safetensors file.
        progress: called with how far the phantoms and the training are.

    Raises:
        ConfigError: an adapter that does not train the backbone, or fewer patients than a batch.
    """
    if not config.model.adapter.trains_backbone:
        raise ConfigError(f'model.adapter: pre-training trains the whole backbone: "full", not "{config.model.adapter.name}".')
    if patients < config.training.batch_size:
        raise ConfigError(f"--patients: expected a batch ({config.training.batch_size}) or more, got {patients}.")
    model = build_model(config)
    found = simulate(patients, partial(dissect, seed=seed, data=config.data, patch=model.patch_size), progress)
    images, parts = np.stack([one.images for one in found]), np.stack([one.parts for one in found])
    train(model, images, parts, config, lambda done, total: progress("pre-training", done, total))
    about = {"backbone": config.model.backbone, "config": config.to_json(), "phantoms": f"{patients} of seed {seed}"}
    write_atomic(out, save(backbone_arrays(get_arrays(model)), metadata=about))


def train(
    model: MultiModalViT,
    images: NDArray[np.float16],
    parts: NDArray[np.float16],
    config: RunConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[float]:
    """Move the model's backbone; returns the loss of each step.

    Args:
        model: its ViT's arrays are trained, nothing else of it.
        images: [N, S, M, H, W].
        parts: [N, S, K - 1, h, w], shares of the patch.
        config: `training` and `seed`.
        progress: called with steps done and in all.
    """
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        heads = nn.ModuleList(nn.Linear(model.width, len(PARTS) + 1) for _ in range(2))  # of patch tokens, and of CLS
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("vit."))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad] + list(heads.parameters())
    optimizer = torch.optim.AdamW(trained, lr=config.training.learning_rate, weight_decay=DECAY)
    batch = config.training.batch_size
    steps = config.training.local_epochs * len(images) // batch
    losses = []
    for step in range(steps):
        rate = config.training.learning_rate * min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        optimizer.param_groups[0]["lr"] = float(rate)
        rows = torch.randperm(len(images), generator=generator)[:batch].numpy()
        slices = torch.stack([torch.randperm(images.shape[1], generator=generator)[:SLICES] for _ in rows]).numpy()
        x, shares = (torch.from_numpy(array[rows[:, None], slices].astype(np.float32)) for array in (images, parts))
        x, shares, present = vary(x, shares, generator)
        loss = tissue_loss(model, heads, x, shares, present)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        losses.append(float(loss.detach()))
        progress(step + 1, steps)
    return losses


def vary(x: Tensor, shares: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Other intensities, flips, and fewer modalities: x [B, S, M, H, W], shares [B, S, K - 1, h, w], present [B, M]."""
    B, _, M = x.shape[:3]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    gamma, gain, offset = (spread * normal(B, 1, M, 1, 1) for spread in (GAMMA, GAIN, OFFSET))
    changed = x.clamp_min(1e-4) ** gamma.exp() * (1 + gain) + offset + NOISE * normal(*x.shape)
    x = changed.clamp(0, 1) * (x > 0)  # air stays air
    for axis in (-2, -1):
        flipped = torch.rand(B, generator=generator) < 0.5
        x[flipped], shares[flipped] = x[flipped].flip(axis), shares[flipped].flip(axis)
    present = torch.rand(B, M, generator=generator) > ABSENT
    present[torch.arange(B), torch.randint(M, (B,), generator=generator)] = True
    return x, shares, present


def tissue_loss(model: MultiModalViT, heads: nn.ModuleList, x: Tensor, shares: Tensor, present: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the shares to what tokens tell: of patches, and of CLS, which tells the slice's mean."""
    cls, patches = model.features(x, present)
    shares = shares.flatten(3).transpose(2, 3)  # [B, S, P, K - 1]
    truth = torch.cat([shares, (1 - shares.sum(-1, keepdim=True)).clamp(0, 1)], -1)
    weight = (1 + (TUMOUR_WEIGHT - 1) * shares[..., FIRST_OF_TUMOUR:].sum(-1)).unsqueeze(2) * present[:, None, :, None]
    each = _divergence(truth.unsqueeze(2), heads[0](patches))
    whole = _divergence(truth.mean(2), heads[1](cls))
    return (each * weight).sum() / weight.sum() + whole.mean()


def _divergence(truth: Tensor, logits: Tensor) -> Tensor:
    """[...] of [..., K]."""
    return (truth * (truth.clamp_min(1e-8).log() - logits.log_softmax(-1))).sum(-1)


def simulate(patients: int, work: Callable[[int], Dissected], progress: Progress) -> list[Dissected]:
    """All patients in their order, on two cores."""
    found = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for one in pool.map(work, range(patients), chunksize=8):
            found.append(one)
            progress("phantoms", len(found), patients)
    return found
