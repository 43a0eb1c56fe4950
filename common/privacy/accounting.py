"""Privacy accounting: epsilon of a history of Poisson-subsampled Gaussian mechanisms, composed as a whole.

The accountant is Opacus' PRV (Gopi et al., NeurIPS 2021): adding up an epsilon per round would claim six times too much, and its
`gdp` accountant claims too little. Adjacency: a patient's update is replaced by zero, the number of patients is public.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from common.privacy.charge import Charge

if TYPE_CHECKING:
    from opacus.accountants.accountant import IAccountant

LOOSE = 60.0  # beyond this epsilon the cheap bound is told: PRV would need gigabytes to say more exactly what protects nobody
LARGEST_NOISE = 1e4
TOLERANCE = 1e-3  # relative, of a noise multiplier that is searched


def epsilon_of(history: Iterable[Charge], delta: float) -> float:
    """Epsilon, an upper bound, of everything in `history` together, in whatever order it happened.

    Args:
        history: charges, each of some steps at one sampling rate and one noise.
        delta: above 0, below 1.

    Returns:
        0 for no step; infinite where a step had no noise. Above `LOOSE` the looser Renyi bound.
    """
    from opacus.accountants import PRVAccountant, RDPAccountant  # noqa: PLC0415  a third of a site's start, for private runs only

    if not 0 < delta < 1:
        raise ValueError(f"Expected 0 < delta < 1, got {delta}.")
    merged: dict[tuple[float, float], int] = {}
    for charge in history:
        if charge.steps and charge.sample_rate:
            key = charge.noise_multiplier, charge.sample_rate
            merged[key] = merged.get(key, 0) + charge.steps
    if not merged:
        return 0.0
    if any(noise == 0 for noise, _ in merged):
        return math.inf
    steps = [(noise, rate, count) for (noise, rate), count in sorted(merged.items())]
    rough = _ask(RDPAccountant(), steps, delta)
    return rough if not rough < LOOSE else min(rough, _ask(PRVAccountant(), steps, delta))


def noise_for(epsilon: float, delta: float, sample_rate: float, steps: int, spent: Iterable[Charge] = ()) -> float:
    """The least noise multiplier with which `steps` more keep a patient within `epsilon`.

    Raises:
        ValueError: no noise is enough: what is spent already reaches it.
    """
    history = tuple(spent)

    def fits(noise: float) -> bool:
        return epsilon_of((*history, Charge(noise, sample_rate, steps)), delta) <= epsilon

    if not fits(LARGEST_NOISE):
        raise ValueError(f"No noise keeps {steps} more steps within epsilon {epsilon:g}.")
    low, high = 0.0, 1.0
    while not fits(high):
        low, high = high, high * 2
    while high - low > TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def steps_within(epsilon: float, delta: float, one: Charge, spent: Iterable[Charge] = (), *, most: int = 100_000) -> int:
    """How many times `one` (a round, say) can be charged before `epsilon` would be exceeded; at most `most`."""
    history = tuple(spent)

    def fits(times: int) -> bool:
        return epsilon_of((*history, Charge(one.noise_multiplier, one.sample_rate, one.steps * times)), delta) <= epsilon

    return last_true(fits, most)


def last_true(fits: Callable[[int], bool], most: int) -> int:
    """The largest n up to `most` that fits, where everything below it does; 0 where not even 1 does."""
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, high * 2
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _ask(accountant: "IAccountant", steps: list[tuple[float, float, int]], delta: float) -> float:
    """An accountant's epsilon; infinite where its arithmetic fails."""
    accountant.history = steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RDP says when its best order is the first or last: the bound is valid all the same
        try:
            answer = float(accountant.get_epsilon(delta))
        except (RuntimeError, ValueError, OverflowError, FloatingPointError):
            return math.inf
    return max(answer, 0.0) if not math.isnan(answer) else math.inf
