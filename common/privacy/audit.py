"""Tests of the privacy claim that do not rely on the training code being right.

Exact tests of the mechanism, and the one-run canary audit (Steinke, Nasr, Jagielski, NeurIPS 2023, arXiv 2305.08846, theorem
5.2): canaries are made-up patients of the largest gradient that clipping allows, half of them take part by chance, and who
guesses from the updates which ones did, better than epsilon allows, has proved the claim wrong. It finds gross faults at a low
epsilon only: that it finds none proves nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from common.privacy.accounting import epsilon_of
from common.privacy.charge import Charge
from common.privacy.noise import system_sample
from common.privacy.optimizer import SystemNoiseOptimizer

PARTS = (SIZE, SEED, RATE, SHARE) = (  # of a step
    "noise of the promised size",
    "noise from no seed",
    "sampling rate as claimed",
    "one patient's share is bounded",
)
ROUND = (OTHERS, MOVES, NOISES, ROWS, LEAVES) = (  # of a whole round
    "nobody's share depends on another",
    "a round moves by bounded shares alone",
    "each array's noise is its own",
    "a round draws and charges alike",
    "nothing leaves beside the update",
)
CHECKS = (*PARTS, *ROUND)
CONFIDENCE = 0.95
NOISE_VALUES = 20_000  # of one empty step, whose spread is measured
SAW_NOTHING = "No patient moved anything (has none a label?): this check saw nothing here."
ROUNDING = 1e-6  # of the sums that are compared, relative
ACCEPTED = 0.05  # relative error of that spread; its own standard error is 0.005

MakeOptimizer = Callable[[torch.optim.Optimizer, float, float, float], SystemNoiseOptimizer]


@dataclass(frozen=True)
class Check:
    """One exact test: what was expected of the mechanism, what it did."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class CanaryAudit:
    """The result of a canary audit.

    Attributes:
        claimed: epsilon that the accountant claims for the audited steps.
        audited: epsilon that is proved, with `CONFIDENCE`: the true one is not below it.
        delta: of both.
        guesses, right: how many canaries were guessed at, and how many rightly.
    """

    claimed: float
    audited: float
    delta: float
    guesses: int
    right: int

    @property
    def passed(self) -> bool:
        """False: the claim is refuted."""
        return self.audited <= self.claimed


def the_optimizer(inner: torch.optim.Optimizer, noise: float, norm: float, expected: float) -> SystemNoiseOptimizer:
    """The one that training uses."""
    return SystemNoiseOptimizer(inner, noise_multiplier=noise, max_grad_norm=norm, expected_patients=expected)


def noise_checks(noise_multiplier: float, max_grad_norm: float, make: MakeOptimizer = the_optimizer) -> list[Check]:
    """A step without patients must give noise alone, of the promised spread, that no seed reproduces."""
    first, second = (_empty_step(noise_multiplier, max_grad_norm, make) for _ in range(2))
    expected, found = noise_multiplier * max_grad_norm, float(first.std())
    right = math.isclose(found, expected, rel_tol=ACCEPTED) and expected > 0
    return [
        Check(SIZE, right, f"standard deviation {found:.4g}, expected {expected:.4g}"),
        Check(SEED, not torch.equal(first, second), "two steps after one seed gave different noise"),
    ]


def removal_check(sums: Callable[[list[int]], dict[str, Tensor]], patients: int, max_grad_norm: float) -> Check:
    """Taking out any one patient must move the clipped sum by no more than the clipping norm.

    Args:
        sums: the clipped sum over the given rows.
        patients: rows 0 to n-1 are tried.
        max_grad_norm: the clipping norm.
    """
    everyone = sums(list(range(patients)))
    moved = []
    for gone in range(patients):
        rest = sums([row for row in range(patients) if row != gone])
        moved.append(math.sqrt(sum(float((everyone[name] - rest[name]).double().square().sum()) for name in everyone)))
    worst = max(moved, default=0.0)
    detail = f"one patient moved the sum by at most {worst:.6g}, allowed {max_grad_norm:.6g}"
    return Check(SHARE, worst <= max_grad_norm * (1 + ROUNDING), detail if worst else f"{detail}. {SAW_NOTHING}")


def sampling_check(sample: Callable[[int, float], NDArray[np.int64]], patients: int, rate: float, steps: int = 2000) -> Check:
    """Samples must be of the claimed rate, and their sizes must vary as Poisson sampling's do (binomially).

    Five standard errors are allowed; where few patients are drawn, the spread's own error is large, and honest samples stray.
    """
    sizes = np.array([len(sample(patients, rate)) for _ in range(steps)])
    mean, variance = patients * rate, patients * rate * (1 - rate)
    spread, excess = math.sqrt(variance), (1 - 6 * rate * (1 - rate)) / variance if variance else 0.0  # of the kurtosis
    near = abs(sizes.mean() - mean) <= 5 * spread / math.sqrt(steps) + 1e-9
    strayed = 5 * math.sqrt(max(2 + excess, 0.0) / (4 * steps))
    varied = abs(sizes.std() - spread) <= max(0.15, strayed) * spread + 1e-9
    detail = f"mean {sizes.mean():.3f} (expected {mean:.3f}), spread {sizes.std():.3f} (expected {spread:.3f})"
    return Check(RATE, bool(near and varied), detail)


def canary_audit(
    charge: Charge,
    delta: float,
    generator: torch.Generator,
    *,
    canaries: int = 600,
    dimension: int = 4000,
    gradients: Callable[[Tensor], Tensor] = lambda g: g,
    make: MakeOptimizer = the_optimizer,
) -> CanaryAudit:
    """Train nothing but canaries through the real sampling, clipping and noise, and guess which took part.

    Args:
        charge: the steps to be audited; best at an epsilon of 1 to 2.
        delta: far below one over the canaries, or the bound says nothing.
        generator: of the canaries and of who takes part; privacy's own randomness comes from the operating system.
        canaries: n, each in or out by a fair coin.
        dimension: D, of the canaries' gradients; large, so that random ones are nearly orthogonal.
        gradients: from the canaries' gradients [n, D] to what is handed to the optimizer: where a planted fault may sit.
        make: builds the optimizer.
    """
    directions = torch.nn.functional.normalize(torch.randn(canaries, dimension, generator=generator), dim=1)
    taking_part = torch.rand(canaries, generator=generator) < 0.5
    members = directions[taking_part]
    weight = torch.zeros(dimension, requires_grad=True)
    optimizer = make(torch.optim.SGD([weight], lr=1.0), charge.noise_multiplier, 1.0, 1.0)
    for _ in range(charge.steps):
        rows = system_sample(len(members), charge.sample_rate)
        optimizer.take({"w": weight}, {"w": gradients(members[torch.as_tensor(rows)])})
    scores = -(directions @ weight.detach())
    claimed = epsilon_of([charge], delta)
    audited, guesses, right = best_bound(scores, taking_part, delta)
    return CanaryAudit(claimed, audited, delta, guesses, right)


def best_bound(scores: Tensor, taking_part: Tensor, delta: float) -> tuple[float, int, int]:
    """Guess the highest scores in and the lowest out; each of four numbers of guesses is tested at a quarter of the risk.

    Returns:
        The largest epsilon that is proved, the number of guesses that proved it, and of right ones.
    """
    order, m = scores.argsort(descending=True), len(scores)
    best = (0.0, 0, 0)
    for share in (0.05, 0.1, 0.25, 0.5):
        k = max(1, int(m * share))
        right = int(taking_part[order[:k]].sum()) + int((~taking_part[order[-k:]]).sum())
        proved = proved_epsilon(2 * k, right, m, delta, (1 - CONFIDENCE) / 4)
        best = max(best, (proved, 2 * k, right))
    return best


def proved_epsilon(guesses: int, right: int, canaries: int, delta: float, risk: float) -> float:
    """The largest epsilon that this many right guesses refute (Steinke et al., theorem 5.2), by bisection.

    Args:
        guesses: that were made; canaries without a guess count for nothing.
        right: how many of them were right.
        canaries: in all.
        delta: of the claim.
        risk: chance of a wrong refutation.
    """

    def refuted(epsilon: float) -> bool:
        p = 1 / (1 + math.exp(-epsilon))
        tail = binom.sf(right - 1, guesses, p)
        worst = 0.0
        total = 0.0
        for i in range(1, right + 1):  # delta may help the guesser by up to i right ones, at a price
            total += binom.pmf(right - i, guesses, p)
            worst = max(worst, total / i)
        return bool(tail + worst * delta * 2 * canaries <= risk)

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 20.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _empty_step(noise_multiplier: float, max_grad_norm: float, make: MakeOptimizer) -> Tensor:
    """The result of a step without patients, after seeding every generator that a fault could use."""
    torch.manual_seed(0)
    np.random.seed(0)
    weight = torch.zeros(NOISE_VALUES, requires_grad=True)
    make(torch.optim.SGD([weight], lr=1.0), noise_multiplier, max_grad_norm, 1.0).take(
        {"w": weight}, {"w": weight.new_zeros(0, NOISE_VALUES)}
    )
    return -weight.detach()
