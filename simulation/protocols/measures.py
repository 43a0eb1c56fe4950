"""Measures of an answer on the external patients, with intervals; of several draws their mean.

The mean over draws is taken on each resample of patients, so an interval says how far other patients would move it. What other
draws would do is told beside it: the least and the largest of them.

R draws, Q patients, C classes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.metrics.bootstrap import NO_INTERVAL, bca_interval, draw_counts, leave_one_out, measure_all
from common.metrics.classification import labelled_only
from simulation.protocols.protocol import Floats

SHOWN = {"mcc": "mcc", "auroc": "auroc_macro", "balanced_accuracy": "balanced_accuracy"}


def measured(labels: NDArray[Any], said: Floats, *, bootstrap: int, generator: np.random.Generator) -> dict[str, Any]:
    """`n`, and for each of `SHOWN` {value, low, high, least, largest}; None where not defined (`common.metrics.classification`).

    Args:
        labels: [Q], below 0: left out.
        said: probabilities [R, Q, C].
        bootstrap: resamples; 0: no intervals.
        generator: draws them.

    Raises:
        ValueError, FedMRIError: as `common.metrics.classification.evaluate`.
    """
    pairs = [labelled_only(labels, one, one.shape[1]) for one in said]
    n = len(pairs[0][0])
    if not n:
        nothing = {"value": None, **NO_INTERVAL, "least": None, "largest": None}
        return {"n": 0, **{name: dict(nothing) for name in SHOWN}}
    every = _by_draw(pairs, np.ones((1, n)))
    counts = draw_counts(n, bootstrap, generator)
    drawn = without = None
    if counts is not None:
        drawn, without = _by_draw(pairs, counts), _by_draw(pairs, leave_one_out(n))
    found: dict[str, Any] = {"n": n}
    for name, measure in SHOWN.items():
        each = every[measure][:, 0]
        value = float(each.mean())
        if not np.isfinite(value):
            found[name] = {"value": None, **NO_INTERVAL, "least": None, "largest": None}
            continue
        interval = dict(NO_INTERVAL)
        if drawn is not None and without is not None:
            interval = bca_interval(value, drawn[measure].mean(0), without[measure].mean(0), n)
        found[name] = {"value": value, **interval, "least": float(each.min()), "largest": float(each.max())}
    return found


def _by_draw(pairs: list[Any], counts: Floats) -> dict[str, Floats]:
    """Each measure [R, resamples]."""
    each = [measure_all(truth, p, counts) for truth, p in pairs]
    return {name: np.stack([one[name] for one in each]) for name in each[0]}
