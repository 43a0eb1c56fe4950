"""The messages that choose, calibrate and compare the trained model: up to four requests and replies after the last round.

    choose  asked  arrays, config as for a round; calibration {stage, candidates: K}; candidate-0 ... candidate-(K-1): arrays
            reply  sums {00.calibration.nll [T], 00.calibration.count [1], 00.calibration.confusion [C, C], 00.calibration.offsets
                   where class offsets are fitted, and so on to K-1}
    fit     asked  arrays, config as for a round; calibration {stage}
            reply  sums {calibration.nll [T], calibration.count [1], moments of `common.evaluation.ood.score`}
    score   asked  arrays, config; calibration {stage, temperature, offsets}; reference: the moments of all sites, added up;
                   absent where there are fewer than two: no site could be scored against others
            reply  sums {calibration.scores [K], ood.scores [K'] where there is a reference}
    own     asked  arrays, config as for a round; calibration {stage}
            reply  sums {00.calibration.nll [T], 00.calibration.count [1], 00.calibration.confusion [C, C]} of the global model,
                   and under 01 the same of the site's own (`[personal]`)

where class offsets are fitted (`common.evaluation.calibration.offsets`), both replies hold calibration.confusion [C, C], rows are
the truth, before and after them, and the first calibration.offsets: losses at the points of a grid,

beside `metrics` and `site` of a round's reply. Whatever is read here came over a wire, and nothing is unpickled.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.errors import FederationError
from common.evaluation.calibration.calibration import LARGEST_OFFSET, SCORE_BINS, SMALLEST, TEMPERATURES, UNSCALED, Scaling
from common.evaluation.calibration.offsets import GRID_TEMPERATURES, STEPS, grid_shape, why_no_offsets
from common.evaluation.stages.candidates import MOST_CANDIDATES
from common.messages.round import MAX_PATIENTS, SiteReply, Task, pack_arrays, unpack_arrays, write_status, write_task
from common.models.arrays import Arrays

CALIBRATION, REFERENCE, SUMS = "calibration", "reference", "sums"  # names of records
CHOOSE, FIT, SCORE, OWN = STAGES = ("choose", "fit", "score", "own")
NLL, COUNT, SCORES, OOD_SCORES = "calibration.nll", "calibration.count", "calibration.scores", "ood.scores"
OFFSETS, CONFUSION = "calibration.offsets", "calibration.confusion"
HAVING = "ood.count"  # of the moments: how many patients stand behind each row
OF_THOSE = ("ood.sum", "ood.outer")  # of the moments: what is summed over them
WORST = -math.log(SMALLEST)  # the largest loss of one patient at temperature 1, but for log C


@dataclass(frozen=True)
class CalibrationRequest:
    """One request for sums."""

    stage: str
    scaling: Scaling = UNSCALED  # under which patients are scored
    candidates: int = 0  # that are chosen from


def write_asked(
    task: Task,
    arrays: ArrayRecord,
    asked: CalibrationRequest,
    reference: ArrayRecord | None,
    candidates: Sequence[ArrayRecord] = (),
) -> RecordDict:
    """The content of a request; packed arrays are shared between the sites' requests."""
    content = write_task(task, arrays)
    temperature, offsets = asked.scaling.temperature, list(asked.scaling.offsets)
    content[CALIBRATION] = ConfigRecord(
        {"stage": asked.stage, "temperature": temperature, "offsets": offsets, "candidates": asked.candidates}
    )
    for number, candidate in enumerate(candidates):
        content[_candidate(number)] = candidate
    if reference is not None:
        content[REFERENCE] = reference
    return content


def read_asked(content: RecordDict, config: RunConfig) -> CalibrationRequest:
    """Read a request for sums.

    Raises:
        FederationError: another stage, a temperature that is none of the grid's range, offsets that are not one a class, or too
            many candidates.
    """
    record = content.get(CALIBRATION)
    if not isinstance(record, ConfigRecord) or record.get("stage") not in STAGES:
        raise FederationError(f"Calibration: expected a request of one of the stages {', '.join(STAGES)}.")
    temperature = record.get("temperature")
    if not isinstance(temperature, float) or not TEMPERATURES[0] * 0.999 <= temperature <= TEMPERATURES[-1] * 1.001:
        raise FederationError(
            f"Calibration: expected a temperature from {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g} in the request."
        )
    candidates, most = record.get("candidates", 0), MOST_CANDIDATES if record["stage"] == CHOOSE else 0
    if type(candidates) is not int or not min(most, 1) <= candidates <= most:
        raise FederationError(f"Calibration: expected at most {most} candidates in the request.")
    return CalibrationRequest(str(record["stage"]), Scaling(temperature, _offsets(record.get("offsets", []), config)), candidates)


def read_candidates(content: RecordDict, asked: CalibrationRequest, template: Arrays) -> Iterator[Arrays]:
    """The candidates of a request, one after another.

    Raises:
        FederationError: one is absent, or not of the model's form.
    """
    for number in range(asked.candidates):
        record = content.get(_candidate(number))
        if not isinstance(record, ArrayRecord):
            raise FederationError(f"Calibration: expected arrays as '{_candidate(number)}' in the request.")
        yield unpack_arrays(record, template)


def _candidate(number: int) -> str:
    return f"candidate-{number}"


def _offsets(value: object, config: RunConfig) -> tuple[float, ...]:
    """The offsets of a request: none, or one a class."""
    most = 0 if why_no_offsets(config) else len(config.task.classes)
    given = value if isinstance(value, list) else [None]
    if len(given) not in (0, most) or not all(isinstance(b, float) and abs(b) <= LARGEST_OFFSET for b in given):
        raise FederationError(f"Calibration: expected no offsets or {most}, each from -{LARGEST_OFFSET:g} to {LARGEST_OFFSET:g}.")
    return tuple(given)


def read_reference(content: RecordDict, config: RunConfig) -> Arrays | None:
    """The moments of all sites in a request; None where there are none.

    Raises:
        FederationError: others than moments have as names, shapes and type, or values that are not finite.
    """
    record = content.get(REFERENCE)
    if record is None:
        return None
    if not isinstance(record, ArrayRecord):
        raise FederationError(f"Calibration: expected arrays as '{REFERENCE}' in the request.")
    return unpack_arrays(record, _moments_like(config))


def form(asked: CalibrationRequest, config: RunConfig, *, scored: bool) -> Arrays:
    """Zeros in the names and shapes of the one answer that fits a request.

    Args:
        asked: its stage says which sums.
        config: its modalities and classes give the shapes; whether offsets are fitted is read too.
        scored: whether the request has a reference.
    """
    classes, offsets = len(config.task.classes), not why_no_offsets(config)
    confusion = {CONFUSION: np.zeros((classes, classes), np.float32)}
    losses = {NLL: _zeros(len(TEMPERATURES)), COUNT: _zeros(1)}
    if asked.stage == OWN:
        return together([losses | confusion] * 2)
    losses |= {OFFSETS: np.zeros(grid_shape(classes), np.float32)} if offsets else {}
    if asked.stage == CHOOSE:
        return together([losses | confusion] * asked.candidates)
    confusion = confusion if offsets else {}
    if asked.stage == FIT:
        return {**losses, **confusion, **_moments_like(config)}
    return {SCORES: _zeros(SCORE_BINS), **confusion} | ({OOD_SCORES: _zeros(_ood_bins())} if scored else {})


def together(parts: Sequence[Arrays]) -> Arrays:
    """The candidates' sums under one roof: the number of each before the name."""
    return {f"{number:02d}.{name}": array for number, sums in enumerate(parts) for name, array in sums.items()}


def apart(sums: Arrays) -> list[Arrays]:
    """Undo `together`; other sums are one part."""
    parts: dict[str, Arrays] = {}
    for name, array in sums.items():
        number, _, rest = name.partition(".")
        key, plain = (number, rest) if number.isdecimal() else ("", name)
        parts.setdefault(key, {})[plain] = array
    return [parts[key] for key in sorted(parts)]


def write_sums(status: SiteReply, sums: Arrays) -> RecordDict:
    """A site's answer."""
    content = write_status(status)
    content[SUMS] = pack_arrays(sums)
    return content


def read_sums(content: RecordDict, template: Arrays) -> Arrays:
    """The sums of an answer, checked for what can be known of them without the patients.

    Args:
        content: a site's reply.
        template: `form` of the request.

    Raises:
        FederationError: other names, shapes or types; values that are not finite; counts that are not whole or below 0; losses
            that no such number of patients can have; moments of nobody.
    """
    record = content.get(SUMS)
    if not isinstance(record, ArrayRecord):
        raise FederationError(f"The reply has no record '{SUMS}'.")
    sums = unpack_arrays(record, template)
    parts = apart(sums)
    for part in parts:
        _require_possible(part)
    if len({part[CONFUSION].sum(axis=1).tobytes() for part in parts if CONFUSION in part}) > 1:
        raise FederationError("Sums of several candidates: expected the same patients of each class in all.")
    return sums


def _require_possible(sums: Arrays) -> None:
    for name in sums.keys() & {COUNT, SCORES, OOD_SCORES, CONFUSION, HAVING}:
        counts = sums[name].astype(np.float64)
        if (counts < 0).any() or (counts != np.floor(counts)).any() or counts.sum() > MAX_PATIENTS:
            raise FederationError(f"Array {name}: expected whole numbers of patients.")
    if NLL in sums:
        most = sums[COUNT].astype(np.float64) * (WORST / TEMPERATURES + WORST)
        if (sums[NLL] < 0).any() or (sums[NLL] > most).any():
            raise FederationError(f"Array {NLL}: expected losses of {int(sums[COUNT][0])} patients.")
    if CONFUSION in sums and sums[CONFUSION].sum() != sums[COUNT if NLL in sums else SCORES].sum():
        raise FederationError(f"Array {CONFUSION}: expected as many patients as in the other sums.")
    if OFFSETS in sums and not _possible(sums[OFFSETS].astype(np.float64), float(sums[COUNT][0])):
        raise FederationError(f"Array {OFFSETS}: expected losses of {int(sums[COUNT][0])} patients.")
    for name in sums.keys() & set(OF_THOSE):  # what was left out for being of few is out of all three
        if sums[name][sums[HAVING] == 0].any():
            raise FederationError(f"Array {name}: expected zeros where {HAVING} is 0.")


def _possible(losses: NDArray[np.float64], patients: float) -> bool:
    """Whether so many patients can have these losses at the points of the offsets' grid.

    Along an offset a patient's loss bends upward and changes by no more than the offset does: what a site says at one point of
    the grid bounds what it can say at the next, and no single point can be pulled anywhere.
    """
    most = patients * (WORST / GRID_TEMPERATURES + WORST).reshape(-1, *[1] * (losses.ndim - 1))
    slack = 1e-5 * np.abs(losses).max() + 1e-5  # of float32
    step = patients * float(STEPS[1] - STEPS[0]) + slack
    axes = range(1, losses.ndim)
    smooth = all(np.abs(np.diff(losses, axis=axis)).max() <= step for axis in axes)
    convex = all(np.diff(losses, n=2, axis=axis).min() >= -slack for axis in axes)
    return bool((losses >= 0).all() and (losses <= most).all() and smooth and convex)


def smallest_cohort(sums: Arrays) -> float:
    """The smallest number of patients that any of the sums is of, by its own count; infinite where there are none."""
    counts = [float(part[name].sum()) for part in apart(sums) for name in (COUNT, SCORES, OOD_SCORES, CONFUSION) if name in part]
    counts += [float(count) for count in sums.get(HAVING, ())]
    return min((count for count in counts if count), default=math.inf)


def _moments_like(config: RunConfig) -> Arrays:
    from common.evaluation.ood.score import moments_like  # noqa: PLC0415  it brings torch, which the gate mostly does without

    return moments_like(config)


def _ood_bins() -> int:
    from common.evaluation.ood.score import SCORE_EDGES  # noqa: PLC0415  as above

    return len(SCORE_EDGES) - 1


def _zeros(length: int) -> NDArray[np.float32]:
    return np.zeros(length, np.float32)
