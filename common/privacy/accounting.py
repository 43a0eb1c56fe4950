"""Privacy accounting: epsilon of a history of Poisson-subsampled Gaussian mechanisms, composed as a whole.

The accountant is Opacus' PRV (Gopi et al., NeurIPS 2021): adding up an epsilon per round would claim six times too much, and its
`gdp` accountant claims too little. Adjacency: a patient's update is replaced by zero, the number of patients is public.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from common.privacy.accountants import accountants
from common.privacy.charge import Charge

if TYPE_CHECKING:
    from opacus.accountants.accountant import IAccountant

LOOSE = 60.0  # beyond this epsilon the cheap bound is told: PRV would need gigabytes to say more exactly what protects nobody
FINE, COARSE = 0.01, 1e-3  # the accountant's own error in epsilon, on top of the truth; of a large epsilon a thousandth
LARGEST_NOISE = 1e4
SMALLEST_NOISE = 1e-100  # so that its square is a number
TOLERANCE = 1e-3  # relative, of a noise multiplier that is searched


def epsilon_of(history: Iterable[Charge], delta: float) -> float:
    """Epsilon, an upper bound, of everything in `history` together, in whatever order it happened.

    Args:
        history: charges, each of some steps at one sampling rate and one noise.
        delta: above 0, below 1.

    Returns:
        0 for no step; infinite where a step had no noise. Above `LOOSE` the looser Renyi bound.
    """
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
    steps = tuple((noise, rate, count) for (noise, rate), count in sorted(merged.items()))
    rough = _renyi(steps, delta)
    return rough if not rough < LOOSE else min(rough, _exact(steps, delta, max(FINE, rough * COARSE)))


def noise_for(epsilon: float, delta: float, sample_rate: float, steps: int, spent: Iterable[Charge] = ()) -> float:
    """The least noise multiplier with which `steps` more keep a patient within `epsilon`.

    Raises:
        ValueError: no noise is enough: what is spent already reaches it.
    """
    history = tuple(spent)

    def epsilon_at(noise: float) -> float:
        return epsilon_of((*history, Charge(noise, sample_rate, steps)), delta)

    if not epsilon_at(LARGEST_NOISE) <= epsilon:
        raise ValueError(f"No noise keeps {steps} more steps within epsilon {epsilon:g}.")
    return least_noise(epsilon_at, epsilon, _first_guess(epsilon, delta, sample_rate, steps))


def least_noise(epsilon_at: Callable[[float], float], epsilon: float, guess: float) -> float:
    """The least noise whose epsilon is within the target, to `TOLERANCE`; few evaluations, since little noise costs most time.

    Args:
        epsilon_at: falls with the noise; may be infinite.
        epsilon: the target.
        guess: where to begin; any number above 0 will do.

    Returns:
        A noise whose epsilon was found to be within the target; `SMALLEST_NOISE` where any is.

    Raises:
        ValueError: not even `LARGEST_NOISE` is enough.
    """
    enough, least, step = min(guess, LARGEST_NOISE), 0.0, 1.03
    at_enough, at_least = epsilon_at(enough), math.inf
    while at_enough > epsilon:
        if enough >= LARGEST_NOISE:
            raise ValueError(f"No noise up to {LARGEST_NOISE:g} keeps within epsilon {epsilon:g}.")
        least, at_least = enough, at_enough
        enough = min(enough * max(step, min(at_enough / epsilon, 2.0)), LARGEST_NOISE)
        at_enough, step = epsilon_at(enough), step * step
    while not least:
        if enough <= SMALLEST_NOISE:
            return enough
        below = max(enough / max(step, min(epsilon / max(at_enough, 1e-9), 1.5)), SMALLEST_NOISE)
        found, step = epsilon_at(below), step * step
        if found <= epsilon:
            enough, at_enough = below, found
        else:
            least, at_least = below, found
    near, turn = [(enough, at_enough), (least, at_least)], 0
    while enough - least > TOLERANCE * enough:
        middle = math.sqrt(least * enough) if turn % 4 == 3 else _near_root(least, enough, near, epsilon)
        found, turn = epsilon_at(middle), turn + 1
        near = sorted([*near, (middle, found)], key=lambda point: _off(point[1], epsilon))[:2]
        if found <= epsilon:
            enough = middle
        else:
            least = middle
    return enough


def _near_root(least: float, enough: float, near: list[tuple[float, float]], epsilon: float) -> float:
    """Noise between two where a line through the nearest two answers, both in logarithms, meets the target; a little beyond it,
    so that the end that is far off moves over the answer: above it first, then below it.
    """
    (noise, at_noise), (other, at_other) = near
    middle = math.sqrt(least * enough)
    if not (0 < min(at_noise, at_other) < max(at_noise, at_other) < math.inf):
        return middle
    slope = math.log(other / noise) / math.log(at_other / at_noise)
    root = noise * math.exp(min(max(slope * math.log(epsilon / at_noise), -1.0), 1.0))
    beyond = 1 + 0.4 * TOLERANCE
    asked = root * beyond if enough > root * beyond * beyond else root / beyond
    return asked if least < asked < enough else middle


def _off(found: float, epsilon: float) -> float:
    """How far an answer is from the target, in logarithms."""
    return abs(math.log(found / epsilon)) if 0 < found < math.inf else math.inf


def _first_guess(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Noise near the answer: what `_squared_mu` says of it."""
    return 1 / math.sqrt(math.log1p(_mu_for(epsilon, delta) ** 2 / (sample_rate * sample_rate * steps)))


def steps_within(epsilon: float, delta: float, one: Charge, spent: Iterable[Charge] = (), *, most: int = 100_000) -> int:
    """How many times `one` (a round, say) can be charged before `epsilon` would be exceeded; at most `most`."""
    history = tuple(spent)

    def fits(times: int) -> bool:
        return epsilon_of((*history, Charge(one.noise_multiplier, one.sample_rate, one.steps * times)), delta) <= epsilon

    done = sum(_squared_mu(charge) for charge in history)
    each = _squared_mu(one)
    guess = int((_mu_for(epsilon, delta) ** 2 - done) / each) if 0 < each < math.inf and done < math.inf else 1
    return last_true(fits, most, guess)


def last_true(fits: Callable[[int], bool], most: int, guess: int = 1) -> int:
    """The largest n up to `most` that fits, where all below it do; 0 where not even 1 does. It looks near `guess` first."""
    low, high = 0, most + 1  # the first fits, the second does not
    at, step = min(max(guess, 1), most), 1
    while high - low > 1:
        if fits(at):
            low, at = at, at + step
        else:
            high, at = at, at - step
        step *= 2
        if not low < at < high:  # both ends are known: halve what lies between from here on
            at, step = (low + high) // 2, most
    return low


def _squared_mu(charge: Charge) -> float:
    """About the square of mu, of the Gaussian mechanism that so many steps are (Dong et al., 2019); it adds up."""
    noise = charge.noise_multiplier
    if not noise or 1 / noise**2 > 700:
        return math.inf
    return charge.steps * charge.sample_rate**2 * math.expm1(1 / noise**2)


def _mu_for(epsilon: float, delta: float) -> float:
    """About the mu whose epsilon at delta this is: epsilon = mu tail + mu^2 / 2."""
    tail = math.sqrt(2 * math.log(1 / delta))
    return math.sqrt(tail * tail + 2 * epsilon) - tail


Steps = tuple[tuple[float, float, int], ...]  # noise multiplier, sampling rate, how many


@lru_cache(maxsize=4096)
def _renyi(steps: Steps, delta: float) -> float:
    renyi, _ = accountants()
    return _ask(renyi(), steps, delta)


@lru_cache(maxsize=4096)
def _exact(steps: Steps, delta: float, error: float) -> float:
    _, exact = accountants()
    return _ask(exact(), steps, delta, eps_error=error)


def _ask(accountant: "IAccountant", steps: Steps, delta: float, **settings: float) -> float:
    """An accountant's epsilon; infinite where its arithmetic fails."""
    accountant.history = list(steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RDP says when its best order is the first or last: the bound is valid all the same
        try:
            answer = float(accountant.get_epsilon(delta, **settings))
        except (RuntimeError, ValueError, ArithmeticError):
            return math.inf
    return max(answer, 0.0) if not math.isnan(answer) else math.inf
