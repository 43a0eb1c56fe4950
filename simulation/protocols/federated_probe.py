"""The linear probe by Newton's steps: sites tell sums of losses, gradients and Hessians, and the fit is the pooled one.

A site with at least `min_patients` labelled patients tells, once, counts by class and two sums of its features (their mean and
deviation), and in each step its loss [1], gradient [K (F + 1)] and Hessian [K (F + 1), K (F + 1)], all sums over all its labelled
patients. These are exact, and no privacy of themselves: a Hessian of fewer patients than features spans the very features of
these patients, so hospitals would send it masked alone (secure aggregation).

F features, K classes that training patients have, C classes of the run.
"""

from dataclasses import dataclass

import numpy as np

from common.errors import DataError
from simulation.protocols.linear_probe import FIXED
from simulation.protocols.protocol import Answer, Floats, Training, spread_over
from simulation.protocols.scale import fit_scale
from simulation.protocols.softmax_regression import Sample, balanced, newton, probabilities

TOLD = "counts by class, sums of features, and in each step loss, gradient and Hessian, summed over a site's patients"


@dataclass(frozen=True)
class FederatedProbe:
    """Class-balanced, on standardised features; the strength is fixed, for its choice takes a fit for each fold and strength."""

    strength: float = FIXED

    @property
    def name(self) -> str:
        """In tables."""
        return "linear probe, federated"

    def answer(self, training: Training, asked: Floats, generator: np.random.Generator) -> Answer:
        """See `FrozenProtocol.answer`.

        Raises:
            DataError: no site has enough patients, or there are too many features for Newton's steps.
        """
        del generator
        return federated_fit(training, asked, self.strength)


def federated_fit(training: Training, asked: Floats, strength: float) -> Answer:
    """Fit on the patients of all sites that have enough of them, and answer.

    Args:
        training: N labelled patients.
        asked: [Q, F].
        strength: scikit-learn's C.

    Raises:
        DataError: no site has enough patients, or there are too many features for Newton's steps.
    """
    sites, refused = training.each_site()
    if not sites:
        raise DataError("no site has `policy.min_patients` labelled patients")
    counts = np.sum([np.bincount(own.y, minlength=training.classes) for own in sites], axis=0)
    known = np.flatnonzero(counts)
    if len(known) == 1:
        said = spread_over(np.ones((len(asked), 1)), known, training.classes)
        return Answer(said[None], 0, "one class", TOLD)
    scale = fit_scale([own.x for own in sites])
    samples = []
    for own in sites:
        y = np.searchsorted(known, own.y)
        samples.append(Sample(scale.apply(own.x), y, balanced(y, counts[known])))
    w, steps = newton(samples, len(known), strength)
    said = spread_over(probabilities(w, scale.apply(asked)), known, training.classes)
    sent = steps * (w.size**2 + w.size + 1) * 8 / 1e6
    chosen = f"C = {strength:g}, fixed; {steps} steps, {sent:.1f} MB from each of {len(sites)} sites; {refused} refused"
    return Answer(said[None], w.size, chosen, TOLD)
