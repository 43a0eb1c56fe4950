"""Temperature scaling, and prediction sets that hold the true class at the nominal coverage.

One number, the temperature, is fitted on patients that never trained (Guo et al., ICML 2017), and a class offset for each class
beside it (`common.evaluation.calibration.offsets`). Their scores under both give the threshold of split conformal prediction sets
(Angelopoulos & Bates 2021, section 1). All are fitted from sums alone, so that the sums of several hospitals add up and no
patient's own probabilities need travel.

N patients, C classes, T temperatures, K bins.
"""

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import FedMRIError
from common.evaluation.conformal import conformal_bin
from common.models.arrays import Arrays, load_arrays, save_arrays

Floats = NDArray[np.float64]

CALIBRATION_NAME = "calibration.safetensors"
ENTRY = "calibration"  # of that file's metadata

TEMPERATURES: Floats = 2.0 ** (np.arange(-32, 65) / 16)  # a quarter to 16, sixteen steps an octave; 1 is among them
SCORE_BINS = 200  # of 1 - p_true, equally wide, from 0 to 1
PRIOR = math.log(2.0)  # standard deviation of log T before any patient has been seen: few patients must not send it to an edge
LARGEST_OFFSET = 20.0  # of a class, as a difference of log-probabilities
LEAST_TO_VOUCH = 20  # held-back patients: of fewer not even one in twenty can be known; two hospitals' `min_patients`, too
SMALLEST = 1e-300  # a probability that has become 0 by rounding still has a logarithm


@dataclass(frozen=True)
class Scaling:
    """What is done to log-probabilities before the softmax is taken again: softmax(log p / T + b).

    Attributes:
        temperature: T, above 0; 1 changes nothing, and never which class is most likely.
        offsets: b, one a class; empty: none.
    """

    temperature: float = 1.0
    offsets: tuple[float, ...] = ()

    def apply(self, probabilities: NDArray[Any]) -> Floats:
        """Probabilities [N, C] to calibrated ones [N, C]."""
        if not self.offsets:
            return apply_temperature(probabilities, self.temperature)
        return np.exp(log_softmax(logarithm(probabilities) / self.temperature + np.array(self.offsets)))


UNSCALED = Scaling()


@dataclass(frozen=True)
class Calibration:
    """What turns a model's raw probabilities into an answer. See `to_json` for how it travels.

    Attributes:
        temperature: divides log-probabilities before the softmax; 1: none.
        coverage: of the prediction sets, as promised, between 0 and 1.
        set_threshold: a class is in the set when 1 - p_calibrated is at most this; 1: all classes are.
        ood_rate: share of ordinary patients that may be flagged, as promised.
        ood_threshold: a patient whose score is above is flagged; infinite: none is. Of others nothing is known where it does not
            `vouches`.
        patients: held-out labelled patients behind it; None: a site keeps its number.
        sites: whose patients they are.
        offsets: added to the divided log-probabilities, one a class; empty: none.
    """

    temperature: float = 1.0
    coverage: float = 0.9
    set_threshold: float = 1.0
    ood_rate: float = 0.05
    ood_threshold: float = math.inf
    patients: int | None = 0
    sites: tuple[str, ...] = ()
    offsets: tuple[float, ...] = ()

    @property
    def scaling(self) -> Scaling:
        """Temperature and offsets."""
        return Scaling(self.temperature, self.offsets)

    @property
    def vouches(self) -> bool:
        """Whether so many patients were held back that a score below the threshold says anything. One above it always does."""
        return self.patients is None or self.patients >= LEAST_TO_VOUCH

    def to_json(self) -> str:
        """Canonical JSON text; an infinite threshold is null."""
        table = asdict(self) | {"ood_threshold": self.ood_threshold if math.isfinite(self.ood_threshold) else None}
        return json.dumps(table, sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "Calibration":
        """Undo `to_json`.

        Raises:
            FedMRIError: anything else.
        """
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FedMRIError(f"The calibration is not valid JSON ({error}). Take the file from the run again.") from error
        if isinstance(table, dict):
            table = {"offsets": [], **table}  # there were none in earlier versions
        if not isinstance(table, dict) or table.keys() != Calibration.__dataclass_fields__.keys():
            names = ", ".join(Calibration.__dataclass_fields__)
            raise FedMRIError(f"The calibration: expected a table of {names}. Take the file from the run again.")
        threshold, patients, sites, offsets = (table[name] for name in ("ood_threshold", "patients", "sites", "offsets"))
        checks = {
            "temperature": _number(table["temperature"]) and table["temperature"] > 0,
            "coverage": _number(table["coverage"]) and 0 < table["coverage"] < 1,
            "set_threshold": _number(table["set_threshold"]) and 0 <= table["set_threshold"] <= 1,
            "ood_rate": _number(table["ood_rate"]) and 0 <= table["ood_rate"] <= 1,
            "ood_threshold": threshold is None or _number(threshold),
            "patients": patients is None or (type(patients) is int and patients >= 0),
            "sites": isinstance(sites, list) and all(isinstance(site, str) for site in sites),
            "offsets": isinstance(offsets, list) and all(_number(b) and abs(b) <= LARGEST_OFFSET for b in offsets),
        }
        wrong = [name for name, good in checks.items() if not good]
        if wrong:
            raise FedMRIError(f"The calibration's {wrong[0]} is not usable: {json.dumps(table[wrong[0]])[:80]}.")
        return Calibration(
            float(table["temperature"]),
            float(table["coverage"]),
            float(table["set_threshold"]),
            float(table["ood_rate"]),
            math.inf if threshold is None else float(threshold),
            patients,
            tuple(sites),
            tuple(float(b) for b in offsets),
        )


def save_calibration(path: Path, calibration: Calibration, reference_arrays: Arrays) -> None:
    """Write the calibration and the moments that out-of-distribution scores refer to as one safetensors file."""
    save_arrays(path, reference_arrays, {ENTRY: calibration.to_json()})


def load_calibration(path: Path) -> tuple[Calibration, Arrays]:
    """Read it back.

    Raises:
        WeightsError, FedMRIError: absent, damaged, or another kind of file.
    """
    arrays, metadata = load_arrays(path)
    if ENTRY not in metadata:
        raise FedMRIError(f"{path}: holds no calibration. Name {CALIBRATION_NAME} of a finished run.")
    return Calibration.from_json(metadata[ENTRY]), arrays


def apply_temperature(probabilities: NDArray[Any], temperature: float) -> Floats:
    """Divide the log-probabilities by the temperature and take the softmax again (Guo et al. 2017, equation 9).

    Args:
        probabilities: [N, C], rows add up to one.
        temperature: above 0; 1 changes nothing.

    Returns:
        [N, C]; the order of a patient's classes stays as it was.
    """
    if temperature == 1:
        return np.asarray(probabilities, np.float64)
    return np.exp(log_softmax(logarithm(probabilities) / temperature))


def prediction_sets(calibrated: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Which classes are in each patient's set [N, C]: never none, the most likely one is always in."""
    chances = np.asarray(calibrated, np.float64)
    return np.asarray((1.0 - chances <= threshold) | (chances == chances.max(axis=1, keepdims=True)))


def nll_sums(labels: NDArray[np.int64], probabilities: NDArray[Any]) -> Floats:
    """Negative log-likelihood at each of `TEMPERATURES`, summed over patients [T]: zeros for no patient.

    Args:
        labels: [N], each a class.
        probabilities: [N, C], uncalibrated.
    """
    logits = logarithm(probabilities)
    rows = np.arange(len(logits))
    return np.array([-log_softmax(logits / temperature)[rows, labels].sum() for temperature in TEMPERATURES])


def fit_temperature(sums: NDArray[Any]) -> float:
    """The most probable temperature: smallest summed loss plus that of a log-normal prior around 1 (MAP).

    The prior weighs as much as a few patients do. Without it, six patients of a model that needs no calibration sent the
    temperature to an edge of the grid in one of six draws. Between two points of the grid a parabola through three decides.

    Args:
        sums: [T], as `nll_sums`, added up over sites.

    Returns:
        At an edge of the grid that edge; 1 where there are no patients.
    """
    loss = _with_prior(sums)
    best = int(loss.argmin())
    if best in (0, len(loss) - 1):
        return float(TEMPERATURES[best])
    before, here, after = loss[best - 1 : best + 2]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
    step = math.log(TEMPERATURES[1] / TEMPERATURES[0])
    return float(TEMPERATURES[best] * math.exp(shift * step))


def temperature_loss(sums: NDArray[Any]) -> float:
    """What `fit_temperature` makes smallest, at the grid's best point."""
    return float(_with_prior(sums).min())


def score_histogram(labels: NDArray[np.int64], calibrated: NDArray[Any]) -> NDArray[np.float32]:
    """How many patients have each score 1 - p_true [K]; bins hold their right edge, the first also 0."""
    scores = 1.0 - np.asarray(calibrated, np.float64)[np.arange(len(labels)), labels]
    bins = np.clip(np.ceil(scores * SCORE_BINS).astype(np.int64) - 1, 0, SCORE_BINS - 1)
    return np.bincount(bins, minlength=SCORE_BINS).astype(np.float32)


def conformal_threshold(histogram: NDArray[Any], coverage: float) -> float:
    """The score that ceil((n + 1) coverage) of n held-out patients do not exceed, up to the right edge of its bin.

    The sets hold the truth of a new patient, exchangeable with these, at least as often as `coverage` says (Angelopoulos & Bates
    2021, theorem 1); the bins can only make them larger.

    Args:
        histogram: [K], as `score_histogram`, added up over sites.
        coverage: between 0 and 1.

    Returns:
        1, so that every class is in every set, where the patients are too few for the promise.
    """
    found = conformal_bin(histogram, coverage)
    return 1.0 if found is None else float(found + 1) / len(histogram)


def _with_prior(sums: NDArray[Any]) -> Floats:
    return np.asarray(sums, np.float64) + 0.5 * (np.log(TEMPERATURES) / PRIOR) ** 2


def logarithm(probabilities: NDArray[Any]) -> Floats:
    """Log-probabilities, finite."""
    return np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST))


def log_softmax(logits: Floats) -> Floats:
    """Over the last axis of [N, C]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _number(value: object) -> bool:
    """Whether it is a finite number; a whole one may be larger than any float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
