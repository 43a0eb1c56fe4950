"""Multinomial logistic regression with a squared penalty, class-balanced: objective, gradient and Hessian as sums over patients.

    J(w) = sum_i a_i (-log p_i[y_i]) / sum_i a_i + s / (2 c sum_i a_i) |W|^2

with patients' weights a_i = N / (K n_c), strength c (scikit-learn's C), W the weights without intercepts, and s = 1. With two
classes s = 2: then J has the minimum of the usual binary model, whose one vector of weights is the difference of these two.
Every sum is one over patients, so sites can each tell their own (`newton`); one list of one site is the pooled fit (`lbfgs`).

N patients of a site, F features and a constant 1 behind them, K classes that training patients have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from common.errors import DataError
from simulation.protocols.protocol import Floats, Ints

TOLERANCE = 1e-9  # of the largest entry of the gradient
STEPS = 50  # of Newton: from zero a convex fit takes about ten
LARGEST = 6000  # weights whose Hessian is still formed: 288 MB
HALVINGS = 30


@dataclass(frozen=True, eq=False)
class Sample:
    """The patients of one site: z [N, F + 1] with the constant 1 last, y [N] from 0 to K - 1, weight [N]."""

    z: Floats
    y: Ints
    weight: Floats


def balanced(y: Ints, counts: Ints) -> Floats:
    """Weights [N] that give every class the same sum, by the counts [K] of all patients."""
    return np.asarray((counts.sum() / (len(counts) * counts))[y])


def probabilities(w: Floats, z: Floats) -> Floats:
    """[N, K] by weights w [K, F + 1]."""
    return np.asarray(softmax(z @ w.T, axis=1))


def loss_sum(w: Floats, own: Sample) -> float:
    """A site's weighted sum of log-losses."""
    logits = own.z @ w.T
    return float(own.weight @ (logsumexp(logits, axis=1) - logits[np.arange(len(own.y)), own.y]))


def gradient_sum(w: Floats, own: Sample) -> Floats:
    """Its gradient [K, F + 1]."""
    off = probabilities(w, own.z) - np.eye(len(w))[own.y]
    return np.asarray((own.weight[:, None] * off).T @ own.z)


def hessian_sum(w: Floats, own: Sample) -> Floats:
    """Its Hessian [K (F + 1), K (F + 1)]."""
    p, width = probabilities(w, own.z), own.z.shape[1]
    found = np.empty((len(w), width, len(w), width))
    for a in range(len(w)):
        for b in range(a, len(w)):
            found[a, :, b] = (own.weight * p[:, a] * ((a == b) - p[:, b]) * own.z.T) @ own.z
            found[b, :, a] = found[a, :, b].T
    return found.reshape(len(w) * width, -1)


def lbfgs(own: Sample, classes: int, strength: float) -> Floats:
    """Weights [K, F + 1] of pooled patients by L-BFGS (Liu & Nocedal 1989).

    The weights are a combination of the patients' features, so with fewer patients than features the fit is made in the span of
    these, by an orthonormal basis, which leaves the penalty as it is.

    Args:
        own: all patients.
        classes: K, 2 or more.
        strength: c, above 0; small is strong.
    """
    basis, coordinates = np.linalg.qr(own.z[:, :-1].T)  # [F, G], [G, N]
    inner = Sample(np.concatenate([coordinates.T, np.ones((len(own.y), 1))], axis=1), own.y, own.weight)
    total, ridge = float(own.weight.sum()), _ridge(own.weight.sum(), classes, strength)

    def objective(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(classes, -1)
        bare = _bare(w)
        value = loss_sum(w, inner) / total + ridge / 2 * float((bare**2).sum())
        return value, (gradient_sum(w, inner) / total + ridge * bare).ravel()

    start = np.zeros(classes * inner.z.shape[1])
    settings = {"maxiter": 5000, "maxfun": 10000, "gtol": TOLERANCE, "ftol": 0.0, "maxcor": 20}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=settings).x.reshape(classes, -1)
    return np.concatenate([found[:, :-1] @ basis.T, found[:, -1:]], axis=1)


def newton(sites: Sequence[Sample], classes: int, strength: float) -> tuple[Floats, int]:
    """The same weights by Newton's steps on sums over sites, and how many steps that took.

    Softmax does not notice a number added to all intercepts, so the Hessian has no inverse; one along that direction is added,
    which changes no step, for no gradient points there. A step that does not lower the objective is halved.

    Args:
        sites: the patients of each.
        classes: K, 2 or more.
        strength: c, above 0; small is strong.

    Raises:
        DataError: more than `LARGEST` weights, or no minimum after `STEPS`.
    """
    width = sites[0].z.shape[1]
    if classes * width > LARGEST:
        raise DataError(f"Newton's steps need a matrix of {classes * width} x {classes * width}; here {LARGEST} is the largest.")
    total = sum(float(own.weight.sum()) for own in sites)
    ridge = _ridge(total, classes, strength)
    fixed = _fixed(classes, width, ridge)

    def objective(w: Floats) -> float:
        return sum(loss_sum(w, own) for own in sites) / total + ridge / 2 * float((_bare(w) ** 2).sum())

    w = np.zeros((classes, width))
    for step in range(STEPS):
        gradient = sum((gradient_sum(w, own) for own in sites), np.zeros_like(w)) / total + ridge * _bare(w)
        if np.abs(gradient).max() < TOLERANCE:
            return w, step
        hessian = sum((hessian_sum(w, own) for own in sites), np.zeros_like(fixed)) / total + fixed
        move = cho_solve(cho_factor(hessian, overwrite_a=True), gradient.ravel()).reshape(w.shape)
        before, size = objective(w), 1.0
        while objective(w - size * move) > before + 1e-12 and size > 0.5**HALVINGS:
            size /= 2
        w = w - size * move
    raise DataError(f"Newton's steps found no minimum in {STEPS}. Ask for a stronger penalty (a smaller strength).")


def _bare(w: Floats) -> Floats:
    """Weights without intercepts, which are not penalised."""
    return np.concatenate([w[:, :-1], np.zeros((len(w), 1))], axis=1)


def _ridge(total: float, classes: int, strength: float) -> float:
    return (2 if classes == 2 else 1) / (strength * total)


def _fixed(classes: int, width: int, ridge: float) -> Floats:
    """The penalty's Hessian, and one along the intercepts that softmax does not notice."""
    bare = np.ones((classes, width))
    bare[:, -1] = 0
    same = (1 - bare.ravel()) / np.sqrt(classes)
    return np.diag(ridge * bare.ravel()) + np.outer(same, same)
