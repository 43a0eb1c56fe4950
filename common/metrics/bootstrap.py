"""The bootstrap over patients: every measure on every resample at once, and the percentile interval.

A resample is how often each patient was drawn (counts), so that all measures are sums over patients weighted by counts: a matrix
product in place of a loop over resamples. The jackknife is the same with other counts.

Letters: N patients, C classes, R resamples.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Interval = dict[str, float | None]

NO_INTERVAL: Interval = {"low": None, "high": None}
TAILS = (0.025, 0.975)  # of a 95% interval
JACKKNIFE = 500  # patients who are left out in turn
DEFINED_SHARE = 0.5  # an interval needs the measure on at least this share of the resamples
MEASURES = ("mcc", "balanced_accuracy", "macro_f1", "auroc_macro", "brier")


def draw_counts(patients: int, resamples: int, generator: np.random.Generator) -> Floats | None:
    """How often each patient is in each resample [R, N], or None where no interval can be had."""
    if patients < 2 or resamples < 1:
        return None
    drawn = generator.integers(0, patients, (resamples, patients))
    places = drawn + patients * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=resamples * patients)
    return counts.reshape(resamples, patients).astype(np.float64)


def leave_one_out(patients: int) -> Floats:
    """The jackknife as counts [J, N]: each row lacks one patient; of many patients, evenly chosen ones."""
    lacking = np.unique(np.linspace(0, patients - 1, min(patients, JACKKNIFE)).round().astype(int))
    counts = np.ones((len(lacking), patients))
    counts[np.arange(len(lacking)), lacking] = 0.0
    return counts


def measure_all(labels: Ints, probabilities: Floats, counts: Floats) -> dict[str, Floats]:
    """Each of MEASURES on each resample [R]; NaN where it is not defined.

    Args:
        labels: [N], the true classes.
        probabilities: [N, C].
        counts: [R, N].
    """
    classes = probabilities.shape[1]
    table = confusion(labels, probabilities.argmax(1), classes, counts)
    truth, right = table.sum(2), table.diagonal(axis1=1, axis2=2)
    here = truth > 0
    own_brier = ((probabilities - np.eye(classes)[labels]) ** 2).sum(axis=1)
    return {
        "mcc": mcc(table),
        "balanced_accuracy": _mean_over(here, right, truth),
        "macro_f1": _mean_over(here, 2 * right, truth + table.sum(1)),
        "auroc_macro": auroc(labels, probabilities, counts),
        "brier": counts @ own_brier / counts.sum(1),
    }


def confusion(labels: Ints, guess: Ints, classes: int, counts: Floats) -> Floats:
    """Confusion matrices [R, C, C], rows are the truth."""
    cells = np.eye(classes * classes)[labels * classes + guess]
    return np.asarray(counts @ cells).reshape(-1, classes, classes)


def mcc(table: Floats) -> Floats:
    """MCC of confusion matrices [R, C, C] (Gorodkin 2004); NaN where one true class only, 0 where one guess only."""
    n, truth, guess = table.sum((1, 2)), table.sum(2), table.sum(1)
    top = table.trace(axis1=1, axis2=2) * n - (truth * guess).sum(1)
    diverse, bottom = n**2 - (truth**2).sum(1), n**2 - (guess**2).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(bottom > 0, top / np.sqrt(diverse * bottom), 0.0)
    return np.where(diverse > 0, values, np.nan)


def auroc(labels: Ints, probabilities: Floats, counts: Floats) -> Floats:
    """Mean one-against-the-rest AUROC of each resample [R]; NaN where it lacks a class that the patients have."""
    here = np.unique(labels)
    if len(here) < 2:
        return np.full(len(counts), np.nan)
    return np.asarray(np.mean([_auroc_of(labels == c, probabilities[:, c], counts) for c in here], axis=0))


def bca_interval(value: float, drawn: Floats, without: Floats, patients: int) -> Interval:
    """The bias-corrected and accelerated interval (Efron 1987, JASA 82:171; Efron & Tibshirani 1993, equations 14.9 to 14.15).

    Args:
        value: the measure on the patients as they are.
        drawn: on the resamples [R]; NaN, not defined, is left out.
        without: on `leave_one_out` [J]; NaN is left out.
        patients: N.
    """
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < max(1, DEFINED_SHARE * len(drawn)) or _all_alike(defined):
        return dict(NO_INTERVAL)
    # Half of the ties, for measures of few patients take few values; kept off 0 and 1, whose quantiles are infinite.
    below = ((defined < value).mean() + (defined <= value).mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / len(defined), 1 - 0.5 / len(defined)))
    z = bias + ndtri(TAILS)
    bend = np.maximum(1 - _acceleration(without, patients) * z, 0.1)  # far out the correction would turn round
    low, high = np.quantile(defined, ndtr(bias + z / bend))
    return {"low": float(low), "high": float(high)}


def t_interval(value: float, drawn: Floats, patients: int) -> Interval:
    """The value and t times its bootstrap standard error to either side, for differences, which spread evenly about the true one.

    The error is widened by the root of N / (N - 1), which resampling N patients from N lacks (Hesterberg, The American
    Statistician 69:371, 2015, section 5.2).

    Args:
        value: the difference between two models, or two groups, on the patients as they are.
        drawn: on the resamples [R]; NaN, not defined, is left out.
        patients: N; of two groups, of the smaller one.
    """
    defined = drawn[np.isfinite(drawn)]
    if patients < 2 or len(defined) < max(2, DEFINED_SHARE * len(drawn)):
        return dict(NO_INTERVAL)
    reach = float(stdtrit(patients - 1, TAILS[1]) * defined.std(ddof=1) * np.sqrt(patients / (patients - 1)))
    return {"low": value - reach, "high": value + reach}


def _all_alike(drawn: Floats) -> bool:
    """Whether every resample gives one value, as where all patients are answered rightly: an interval of no width would say
    that no other patients could give another.
    """
    return float(np.ptp(drawn)) <= 1e-12


def _acceleration(without: Floats, patients: int) -> float:
    """A sixth of the skewness of the jackknife over the root of N, which for J = N is equation 14.15."""
    known = without[np.isfinite(without)]
    away = known.mean() - known if len(known) else np.zeros(1)
    size = float((away**2).mean()) ** 1.5
    return float((away**3).mean()) / (6 * size * np.sqrt(patients)) if size > 1e-30 else 0.0


def _auroc_of(positive: NDArray[np.bool_], scores: Floats, counts: Floats) -> Floats:
    """The share of pairs in the right order, a tie counts half [R]: sorted once, then sums of counts (Hanley & McNeil 1982)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    yes = np.add.reduceat(counts[:, order] * positive[order], starts, axis=1)
    no = np.add.reduceat(counts[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(no, axis=1) - no / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((yes * below).sum(1) / (yes.sum(1) * no.sum(1)))


def _mean_over(here: NDArray[np.bool_], top: Floats, bottom: Floats) -> Floats:
    """The mean of top / bottom over the classes that are here [R]."""
    shares = np.divide(top, bottom, out=np.zeros_like(top), where=here)
    return np.asarray(shares.sum(1) / here.sum(1))
