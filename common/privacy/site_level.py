"""Site-level differential privacy: the model hides whether a whole hospital took part (McMahan et al., ICLR 2018).

The sites' changes are clipped, weigh the same, and the server adds noise to their sum: it is trusted, unlike in patient-level
privacy. n sites, d values, clip C, noise multiplier z: a mean of norm at most C gets noise of norm z C sqrt(d) / n. With tens of
hospitals that drowns it; nobody has thousands.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.sections import SiteLevelConfig
from common.privacy.accounting import epsilon_of
from common.privacy.charge import Charge
from common.privacy.noise import system_normal

Change = NDArray[np.float64]


def clip_change(change: Change, clip: float) -> Change:
    """The change, shortened to norm `clip` where it is longer."""
    norm = float(np.linalg.norm(change))
    return change * (clip / norm) if norm > clip else change


def noised_mean(changes: Iterable[Change], trained: NDArray[np.bool_], config: SiteLevelConfig) -> Change:
    """Site-level privacy's own mean: every change clipped, all of one weight, plus the noise of one round.

    Args:
        changes: [values] each; read one at a time.
        trained: as in `noised_change`.
        config: the clip and the noise multiplier.
    """
    total, sites = np.zeros(len(trained)), 0
    for change in changes:
        total += clip_change(change, config.clip)
        sites += 1
    return noised_change(total / sites, trained, sites, config)


def noised_change(mean: Change, trained: NDArray[np.bool_], sites: int, config: SiteLevelConfig) -> Change:
    """Add the noise of one round to the mean of so many clipped changes.

    Args:
        mean: [values].
        trained: [values], those that the round trains. The others are as they were, whoever took part, and must stay so.
        sites: n, that the mean is of: noise on a mean is 1/n of that on a sum.
        config: the clip and the noise multiplier.
    """
    noise = np.zeros_like(mean)
    std = config.noise * config.clip / sites
    noise[trained] = system_normal((int(trained.sum()),), std).double().numpy()
    return np.where(trained, mean + noise, 0.0)


def noise_to_signal(values: int, sites: int, config: SiteLevelConfig) -> float:
    """Norm of the noise over the largest norm that the mean can have."""
    return config.noise * math.sqrt(values) / sites


def site_level_claim(config: SiteLevelConfig, rounds: int, values: int, sites: int) -> dict[str, Any]:
    """The report's claim: each round is one Gaussian mechanism with all sites in it.

    Args:
        config: clip, noise multiplier and delta.
        rounds: that changed the model.
        values: d.
        sites: the fewest that a round had.
    """
    epsilon = epsilon_of([Charge(config.noise, 1.0, rounds)], config.site_delta)
    ratio = noise_to_signal(values, sites, config)
    return {
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "delta": config.site_delta,
        "unit": "hospital",
        "noise_multiplier": config.noise,
        "clip": config.clip,
        "rounds": rounds,
        "noise_to_signal": round(ratio, 1),
        "warning": f"with {sites} hospitals a round's noise is {ratio:.0f} times the largest change that they can make together; "
        "expect a model that has learned little",
    }
