"""The global arrays that a run could keep: of each round, averages and interpolations of them.

The last round is not always the best: tuning can lose what the head rounds had. An average of the tuning rounds (SWA, Izmailov
et al., UAI 2018, equation 1) and a point between the head-only and the tuned model (WiSE-FT, Wortsman et al., CVPR 2022, equation
1) are models of the same shape. Both work on the trained arrays; of an adapter of two factors that is no average of its products.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common.models.arrays import Arrays

LAST, BEST, AVERAGE, INTERPOLATE, AUTO = STAGES = ("last", "best", "average", "interpolate", "auto")
MOST_ROUNDS = 8  # tuning rounds among the candidates, evenly spaced: each is as many bytes to each site as a round is
SHARES = (0.75, 0.5, 0.25)  # of the tuned model, in an interpolation
MOST_CANDIDATES = 1 + MOST_ROUNDS + 1 + len(SHARES)  # head-only, tuned, average, interpolations


@dataclass(frozen=True, eq=False)
class Candidate:
    """Global arrays that could be kept. `round`: whose they are; None: of several."""

    name: str
    round: int | None
    arrays: Arrays


def candidates(stage: str, load: Callable[[int], Arrays], last: int, head_rounds: int, ssl_rounds: int = 0) -> list[Candidate]:
    """What `evaluation.stage` chooses from; of equally good ones the first is kept.

    Args:
        stage: one of `STAGES`.
        load: the global arrays after a round.
        last: number of the last round.
        head_rounds: that fitted the head alone, before the tuning rounds.
        ssl_rounds: before these, that trained no class: no candidates.

    Returns:
        The last round first; then earlier rounds, the latest first, the average, and interpolations, the most tuned first.
        The average alone where `stage` is that. The last round alone where no round tuned anything.
    """
    before = ssl_rounds + head_rounds
    tuned = list(range(before + 1, last + 1))
    if stage == LAST or not tuned:
        return [_of(last, load)]
    rounds = [_of(number, load) for number in _spread(tuned)[::-1]]
    average = Candidate(f"average of rounds {tuned[0]} to {last}", None, mean(load, tuned))
    if stage == AVERAGE:
        return [average]
    head = [_of(before, load)] if head_rounds else []
    between = [_between(head[0], rounds[0], share) for share in SHARES if head]
    found = {BEST: [*rounds, *head], INTERPOLATE: [rounds[0], *head, *between]}
    return found.get(stage, [*rounds, *head, *([average] if len(tuned) > 1 else []), *between])


def mean(load: Callable[[int], Arrays], numbers: Sequence[int]) -> Arrays:
    """The mean of the arrays after these rounds, summed one after another in float64."""
    total: dict[str, np.ndarray] = {}
    for number in numbers:
        for name, array in load(number).items():
            total[name] = total.get(name, 0.0) + array.astype(np.float64)
    return {name: (array / len(numbers)).astype(np.float32) for name, array in total.items()}


def _of(number: int, load: Callable[[int], Arrays]) -> Candidate:
    return Candidate(f"round {number}", number, load(number))


def _between(head: Candidate, tuned: Candidate, share: float) -> Candidate:
    arrays = {
        n: ((1 - share) * a.astype(np.float64) + share * tuned.arrays[n]).astype(np.float32) for n, a in head.arrays.items()
    }
    return Candidate(f"{share:.0%} {tuned.name}, {1 - share:.0%} {head.name}", None, arrays)


def _spread(numbers: Sequence[int]) -> list[int]:
    """At most `MOST_ROUNDS` of them, evenly spaced, the last one always."""
    rows = np.unique(np.linspace(0, len(numbers) - 1, min(MOST_ROUNDS, len(numbers))).round().astype(int))
    return [numbers[row] for row in rows]
