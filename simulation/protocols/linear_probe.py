"""The linear probe: logistic regression by L-BFGS, its strength chosen inside the training patients by cross-validation.

N training patients, Q asked ones, F features, K classes that training patients have, C classes of the run.
"""

from dataclasses import dataclass

import numpy as np

from simulation.protocols.protocol import Answer, Floats, Ints, Training, spread_over
from simulation.protocols.scale import fit_scale
from simulation.protocols.softmax_regression import Sample, balanced, lbfgs, probabilities

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C; the strongest penalty first, which wins a tie
FIXED = 0.01  # where nothing can be chosen: that of the probe in `simulation/probe.py`
FOLDS = 5


@dataclass(frozen=True)
class LinearProbe:
    """Class-balanced, on standardised features; the strength with the least class-balanced log-loss in folds of patients."""

    strengths: tuple[float, ...] = STRENGTHS

    @property
    def name(self) -> str:
        """In tables."""
        return "linear probe"

    def answer(self, training: Training, asked: Floats, generator: np.random.Generator) -> Answer:
        """See `FrozenProtocol.answer`; the folds are drawn."""
        strength, how = self.choose(training, generator)
        known = len(np.unique(training.y))
        parameters = known * (training.x.shape[1] + 1) if known > 1 else 0
        return Answer(fit_and_answer(training, asked, strength)[None], parameters, f"C = {strength:g}, {how}")

    def choose(self, training: Training, generator: np.random.Generator) -> tuple[float, str]:
        """The strength, and how it was found: all held-out patients of all folds are scored together."""
        counts = np.bincount(training.y)
        folds = min(FOLDS, int(counts[counts > 0].min()))
        if folds < 2 or (counts > 0).sum() < 2:
            return FIXED, "fixed: a class has one patient"
        if len(self.strengths) == 1:
            return self.strengths[0], "fixed"
        fold = stratified(training.y, folds, generator)
        losses = []
        for strength in self.strengths:
            said = np.empty((len(fold), training.classes))
            for number in range(folds):
                said[fold == number] = fit_and_answer(training.select(fold != number), training.x[fold == number], strength)
            losses.append(balanced_log_loss(training.y, said))
        return self.strengths[int(np.argmin(losses))], f"by {folds} folds of training patients"


def fit_and_answer(training: Training, asked: Floats, strength: float) -> Floats:
    """Probabilities [Q, C]; where training knows one class only, all on that class."""
    known, y = np.unique(training.y, return_inverse=True)
    if len(known) == 1:
        return spread_over(np.ones((len(asked), 1)), known, training.classes)
    scale = fit_scale([training.x])
    w = lbfgs(Sample(scale.apply(training.x), y, balanced(y, np.bincount(y))), len(known), strength)
    return spread_over(probabilities(w, scale.apply(asked)), known, training.classes)


def stratified(y: Ints, folds: int, generator: np.random.Generator) -> Ints:
    """The fold of each patient [N]; each class is dealt out in a drawn order, going on where the class before ended."""
    fold, dealt = np.empty(len(y), np.int64), 0
    for c in np.unique(y):
        rows = generator.permutation(np.flatnonzero(y == c))
        fold[rows] = (dealt + np.arange(len(rows))) % folds
        dealt += len(rows)
    return fold


def balanced_log_loss(y: Ints, said: Floats) -> float:
    """The mean over classes of the mean log-loss of their patients; infinite where an answer is no number: never chosen."""
    losses = -np.log(np.clip(said[np.arange(len(y)), y], 1e-12, 1))
    mean = float(np.mean([losses[y == c].mean() for c in np.unique(y)]))
    return mean if np.isfinite(mean) else np.inf
