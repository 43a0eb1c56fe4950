"""What server and sites say to each other to calibrate the trained model: two exchanges after the last round.

    fit     asked  arrays, config as for a round; calibration {stage}; reference: zeros in the form of the moments
            told   sums {calibration.nll [T], calibration.count [1], moments as `reference`}
    score   asked  arrays, config; calibration {stage, temperature}; reference: the moments of all sites, added up; absent where
                   there are fewer than two: no site could be scored against others
            told   sums {calibration.scores [K], ood.scores [K'] where there is a reference}

beside `metrics` and `site` of a round's reply. Whatever is read here came over a wire, and nothing is unpickled.
"""

import math
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from common.errors import FederationError
from common.evaluation.calibration import SCORE_BINS, SMALLEST, TEMPERATURES
from common.models.arrays import Arrays
from common.protocol import MAX_PATIENTS, SiteReply, Task, pack_arrays, unpack_array, unpack_arrays, write_status, write_task

CALIBRATION, REFERENCE, SUMS = "calibration", "reference", "sums"  # names of records
FIT, SCORE = "fit", "score"
NLL, COUNT, SCORES, STRANGENESS = "calibration.nll", "calibration.count", "calibration.scores", "ood.scores"
MOMENTS = "ood."  # what names of moments begin with
MAX_MOMENTS = 64  # arrays of them
WORST = -math.log(SMALLEST)  # the largest loss of one patient at temperature 1, but for log C


@dataclass(frozen=True)
class Asked:
    """One request for sums."""

    stage: str
    temperature: float = 1.0  # at which patients are scored


def write_asked(task: Task, arrays: ArrayRecord, asked: Asked, reference: ArrayRecord | None) -> RecordDict:
    """The content of a request; packed arrays are shared between the sites' requests."""
    content = write_task(task, arrays)
    content[CALIBRATION] = ConfigRecord({"stage": asked.stage, "temperature": asked.temperature})
    if reference is not None:
        content[REFERENCE] = reference
    return content


def read_asked(content: RecordDict) -> Asked:
    """Read a request for sums.

    Raises:
        FederationError: another stage, or a temperature that is none of the grid's range.
    """
    record = content.get(CALIBRATION)
    if not isinstance(record, ConfigRecord) or record.get("stage") not in (FIT, SCORE):
        raise FederationError(f"Calibration: expected a request of stage '{FIT}' or '{SCORE}'.")
    temperature = record.get("temperature")
    if not isinstance(temperature, float) or not TEMPERATURES[0] * 0.999 <= temperature <= TEMPERATURES[-1] * 1.001:
        raise FederationError(
            f"Calibration: expected a temperature from {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g} in the request."
        )
    return Asked(str(record["stage"]), temperature)


def read_reference(content: RecordDict) -> Arrays | None:
    """The moments of a request, or their form; None where there are none.

    Raises:
        FederationError: no plain float32 arrays, too many of them, or other names than of moments.
    """
    record = content.get(REFERENCE)
    if record is None:
        return None
    if not isinstance(record, ArrayRecord) or not 0 < len(record) <= MAX_MOMENTS:
        raise FederationError(f"Calibration: expected 1 to {MAX_MOMENTS} arrays of moments in the request.")
    if any(not name.startswith(MOMENTS) or name == STRANGENESS for name in record):
        raise FederationError(f"Calibration: expected moments named {MOMENTS}* in the request.")
    like = {name: unpack_array(name, array, tuple(map(int, array.shape)), "<f4") for name, array in record.items()}
    return unpack_arrays(record, like)  # finite, too


def form(asked: Asked, reference: Arrays | None) -> Arrays:
    """Zeros in the names and shapes of the one answer that fits a request.

    Raises:
        FederationError: stage `fit` without the form of the moments.
    """
    if asked.stage == FIT:
        if reference is None:
            raise FederationError("Calibration: the request does not say what form the moments have.")
        return {NLL: _zeros(len(TEMPERATURES)), COUNT: _zeros(1)} | {n: np.zeros_like(array) for n, array in reference.items()}
    if reference is None:
        return {SCORES: _zeros(SCORE_BINS)}
    from common.evaluation.ood import SCORE_EDGES  # noqa: PLC0415  it brings torch, which the gate mostly does without

    return {SCORES: _zeros(SCORE_BINS), STRANGENESS: _zeros(len(SCORE_EDGES) - 1)}


def write_sums(status: SiteReply, sums: Arrays) -> RecordDict:
    """A site's answer."""
    content = write_status(status)
    content[SUMS] = pack_arrays(sums)
    return content


def read_sums(content: RecordDict, like: Arrays) -> Arrays:
    """The sums of an answer, checked for what can be known of them without the patients.

    Args:
        like: `form` of the request.

    Raises:
        FederationError: other names, shapes or types; values that are not finite; counts that are not whole or below 0; losses
            that no such number of patients can have.
    """
    record = content.get(SUMS)
    if not isinstance(record, ArrayRecord):
        raise FederationError(f"The reply has no record '{SUMS}'.")
    sums = unpack_arrays(record, like)
    for name in sums.keys() & {COUNT, SCORES, STRANGENESS}:
        counts = sums[name].astype(np.float64)
        if (counts < 0).any() or (counts != np.floor(counts)).any() or counts.sum() > MAX_PATIENTS:
            raise FederationError(f"Array {name}: expected whole numbers of patients.")
    if NLL in sums:
        most = sums[COUNT].astype(np.float64) * (WORST / TEMPERATURES + WORST)
        if (sums[NLL] < 0).any() or (sums[NLL] > most).any():
            raise FederationError(f"Array {NLL}: expected losses of {int(sums[COUNT][0])} patients.")
    return sums


def smallest_cohort(sums: Arrays) -> float:
    """Of how many patients the sums are at least, by their own count; infinite where of none at all."""
    counts = [float(sums[name].sum()) for name in (COUNT, SCORES, STRANGENESS) if name in sums]
    return min((count for count in counts if count), default=math.inf)


def _zeros(length: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.zeros(length, np.float32)
