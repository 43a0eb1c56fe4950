"""The one-run canary audit (Steinke, Nasr, Jagielski, NeurIPS 2023, arXiv 2305.08846) of a whole private round.

Canaries are made-up patients of the largest gradient that clipping allows; half of them take part, by chance. They go through
`private_round`: its charge, sampling, clipping, noise and averaging. Only how a gradient comes of images is theirs
(`client.privacy.round_audit` tries that on real patients). It proves gross faults at a low epsilon: at a claim of 1.4 a sound
round lets some 0.3 be proved, at a claim of 8 nothing is left to prove, and a fault must cost several times the claim to be seen.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from client.privacy.round_watch import watch
from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.privacy.accounting import epsilon_of
from common.privacy.audit import CanaryAudit, best_bound
from common.privacy.charge import Charge
from common.training.trainable import trained_names

CANARIES = 600


def canary_round(charge: Charge, delta: float, generator: torch.Generator, canaries: int = CANARIES) -> CanaryAudit:
    """Send canaries through one private head round, and guess from its update which took part.

    Args:
        charge: the steps to be audited; best at an epsilon of 1 to 2.
        delta: far below one over the canaries, or the bound says nothing.
        generator: of the canaries and of who takes part; privacy's own randomness comes from the operating system.
        canaries: each in or out by a fair coin.
    """
    config = _config(charge)
    model = build_model(config)
    start = get_arrays(model)
    names = trained_names(sorted(start), config, 1)
    sizes = [start[name].size for name in names]
    directions = torch.nn.functional.normalize(torch.randn(canaries, sum(sizes), generator=generator), dim=1)
    taking_part = torch.rand(canaries, generator=generator) < 0.5
    members = directions[taking_part]

    def gradients(_: Any, point: Any, __: Any, rows: Any, *___: Any) -> dict[str, Tensor]:
        parts = torch.split(members[torch.as_tensor(np.asarray(rows))], sizes, dim=1)
        return {
            name: part.reshape(-1, *start[name].shape).to(point.trained[name].device)
            for name, part in zip(names, parts, strict=True)
        }

    rate = charge.sample_rate * len(members)
    seen = watch(
        model,
        _nobody(len(members), config),
        config,
        1,
        learning_rate=rate,
        rows_alone=True,
        head_gradients=gradients,
        embed_patients=lambda *_: None,
    )
    change = torch.cat([torch.from_numpy(seen.update.arrays[name] - start[name]).flatten() for name in names])
    audited, guesses, right = best_bound(-(directions @ change), taking_part, delta)
    return CanaryAudit(epsilon_of(seen.charges, delta), audited, delta, guesses, right)


def _config(charge: Charge) -> RunConfig:
    """A small private run of head rounds with these steps."""
    weights = {name: {"weight": 0.0} for name in ("dino", "ibot", "koleo")}
    return config_from_table(
        {
            "data": {"size": 32, "slices": 1},
            "model": {"backbone": "fedmri_vit_mini", "weights": "random", "rank": 2, "head_hidden": 32, "head_bottleneck": 16},
            "objective": {"local_crops": 0, "terms": weights},
            "training": {"precision": "fp32", "head_rounds": 1},
            "federation": {"rounds": 2},
            "privacy": {
                "enabled": True,
                "max_grad_norm": 1.0,
                "noise_multiplier": charge.noise_multiplier,
                "sample_rate": charge.sample_rate,
                "steps": charge.steps,
            },
        }
    )


def _nobody(count: int, config: RunConfig) -> SiteData:
    """Patients of whom nothing is ever looked at."""
    modalities = len(config.data.modalities)
    images = np.zeros((count, 1, modalities, 1, 1), np.float16)
    ids = tuple(map(str, range(count)))
    return SiteData("canaries", ids, images, np.ones((count, modalities), bool), np.zeros(count, np.int64), "canaries")
