"""The k nearest training patients vote (weighted kNN: Wu et al., CVPR 2018, section 3.4; k = 5, T = 0.07: arXiv 2312.02366).

N training patients, Q asked ones, F features, C classes.
"""

from dataclasses import dataclass

import numpy as np

from common.errors import ConfigError
from simulation.protocols.protocol import Answer, Floats, Ints, Training

K, TEMPERATURE = 5, 0.07


@dataclass(frozen=True)
class KNN:
    """Votes exp(s / T) by the cosine s of features; of fewer than k patients all vote."""

    k: int = K
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        check(self.k, self.temperature)

    @property
    def name(self) -> str:
        """In tables."""
        return "kNN"

    def answer(self, training: Training, asked: Floats, generator: np.random.Generator) -> Answer:
        """See `FrozenProtocol.answer`; nothing is drawn."""
        del generator
        filling = known_means(training.x)
        found = votes(cosines(training.x, asked, filling), training.y, training.classes, self.k, self.temperature)
        share = found / found.sum(1, keepdims=True)
        return Answer(share[None], 0, f"k = {min(self.k, len(training.y))}, T = {self.temperature:g}")


def check(k: int, temperature: float) -> None:
    """Refuse settings that mean nothing.

    Raises:
        ConfigError: names the one.
    """
    if k < 1:
        raise ConfigError(f"--k: expected 1 or more neighbours, got {k}.")
    if not 0.001 <= temperature <= 1000:  # beyond, exp(1 / T) is no number, or all votes are one
        raise ConfigError(f"--temperature: expected 0.001 to 1000, got {temperature:g}.")


def known_means(x: Floats) -> Floats:
    """The mean of each feature over the patients who have it [F]; NaN where nobody has."""
    known = np.isfinite(x).sum(0)
    return np.where(known > 0, np.nansum(x, axis=0) / np.maximum(known, 1), np.nan)


def cosines(x: Floats, asked: Floats, filling: Floats) -> Floats:
    """[Q, N]. An absent feature is filled in; one that no training patient has counts for nobody; zeros are far from all.

    Args:
        x: [N, F].
        asked: [Q, F].
        filling: [F], as `known_means` gives it.
    """
    some = np.isfinite(filling)
    near, far = (np.where(np.isfinite(f[:, some]), f[:, some], filling[some]) for f in (x, asked))
    lengths = np.linalg.norm(far, axis=1)[:, None] * np.linalg.norm(near, axis=1)
    return np.asarray((far @ near.T) / np.where(lengths > 0, lengths, 1))


def votes(similarity: Floats, y: Ints, classes: int, k: int, temperature: float) -> Floats:
    """Sums [Q, C] over each asked patient's k nearest of exp((s - 1) / T); of equally near ones the first.

    Args:
        similarity: cosines [Q, N].
        y: [N].
        classes: C.
        k: 1 or more.
        temperature: T.
    """
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    weight = np.exp((np.take_along_axis(similarity, nearest, axis=1) - 1) / temperature)
    return np.asarray((weight[:, :, None] * np.eye(classes)[y[nearest]]).sum(1))
