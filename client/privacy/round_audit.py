"""The private round as a black box: what it does to real patients is watched from its optimizer, and held against its charge.

`client.privacy.audit` tries the parts of a step. Between the parts (the rate that is really drawn, statistics of the site's own
patients, state carried over from before the noise) and between arrays there is room for faults that no part shows. So here
`private_round` itself is run, by plain SGD in the place of the run's optimizer, which sees nothing but noised sums. N patients of
the audit, T steps, C the clipping norm, sigma the noise multiplier.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2
from scipy.stats import norm as normal
from torch import Tensor

from client.privacy.round_watch import RoundSeen, StepSeen, watch
from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.messages.leaving import unlisted
from common.messages.round import SiteReply, write_reply
from common.messages.update import Update
from common.models.multimodal import MultiModalViT
from common.privacy.audit import LEAVES, MOVES, NOISES, OTHERS, ROWS, SAW_NOTHING, Check, sampling_check
from common.privacy.charge import Charge

FEW = 4  # patients of the runs that compute gradients
COUNTED, DRAWN = 8, 1500  # patients of the runs that only count, and how uncertain draws they take at least
LARGEST = 1e6  # a clipping norm that no gradient reaches
STEPS = 3  # of the runs without noise: what a step carries over to the next shows
NOISE_STEPS = 32  # of each of the two runs whose noise is measured
STRAY = 6.0  # standard errors
ROUNDING = 1e-3  # of float32 weights that a step moves, in clipping norms
ZEROED = (0, -1)  # the patients who are taken out, one by one


def check_rounds(model: MultiModalViT, patients: SiteData, config: RunConfig, kinds: list[int]) -> list[Check]:
    """Every check of a round, in the first round of each kind; of several kinds the one that failed is told.

    Args:
        model: of the run.
        patients: the site's own.
        config: of a private run.
        kinds: numbers of the rounds to try (head rounds, adapter rounds).
    """
    few = _few(patients)
    each = [_check_round(model, few, patients, config, number) for number in kinds]
    return [min(same, key=lambda check: check.passed) for same in zip(*each, strict=True)]


def _check_round(model: MultiModalViT, few: SiteData, patients: SiteData, config: RunConfig, number: int) -> list[Check]:
    silent = _with(config, noise_multiplier=0.0, sample_rate=1.0, steps=STEPS)
    open_ = _with(silent, max_grad_norm=LARGEST)  # clipping hides how large a share would be
    still = watch(model, few, open_, number, learning_rate=0.0)
    zeroed = [watch(model, without(few, row), open_, number, learning_rate=0.0) for row in taken_out(few)]
    fewer = watch(model, few.select(range(len(few) - 1)), open_, number, learning_rate=0.0) if len(few) > 1 else None
    norm, rate = config.privacy.max_grad_norm, config.privacy.sample_rate
    norms = [norm, *_loose(still)]
    moving = {c: watch(model, few, _with(silent, max_grad_norm=c), number, learning_rate=len(few) / c) for c in norms}
    noisy = [watch(model, few, _with(config, steps=NOISE_STEPS), number, learning_rate=rate * len(few) / norm) for _ in range(2)]
    counted = _counted(model, patients.select(range(min(COUNTED, len(patients)))), config, number)
    return [
        others_check(still, zeroed, taken_out(few), fewer),
        moves_check(moving),
        noises_check(noisy, norm),
        counted,
        leaves_check([still, *zeroed]),
    ]


def _loose(still: RoundSeen) -> list[float]:
    """A clipping norm that clips nobody, by little: one that follows the sample shows there alone. None without gradients."""
    largest = max((_largest(step) for step in still.steps), default=0.0)
    return [2 * largest] if 0 < largest < LARGEST / 4 else []


def _few(patients: SiteData) -> SiteData:
    """Two of one class, of whom one will be taken out; one without a label; others."""
    labels = patients.labels
    common = np.bincount(labels[labels >= 0]).argmax() if (labels >= 0).any() else -1
    alike, unknown = np.flatnonzero(labels == common)[:2], np.flatnonzero(labels < 0)[:1]
    rest = np.setdiff1d(np.arange(len(patients)), [*alike, *unknown])
    chosen = dict.fromkeys(map(int, [*alike, *unknown, *sorted(rest, key=lambda row: labels[row] < 0)]))
    return patients.select(list(chosen)[:FEW])


def taken_out(patients: SiteData) -> list[int]:
    """Rows of the patients who are zeroed."""
    return sorted({row % len(patients) for row in ZEROED})


def without(patients: SiteData, row: int) -> SiteData:
    """The same patients, one of whom is replaced by zeros and has no label: what nobody else may notice."""
    images, labels = np.array(patients.images), patients.labels.copy()
    images[row], labels[row] = 0, -1
    return replace(patients, images=images, labels=labels, key=f"{patients.key} without {row}")


def others_check(whole: RoundSeen, zeroed: list[RoundSeen], rows: list[int], fewer: RoundSeen | None) -> Check:
    """With a patient replaced by zeros, every other patient's share of every step must be the same, byte for byte.

    Without the last patient at all, it must be the same but for the rounding of a smaller batch.
    """
    compared = changed = strayed = 0
    for gone, other in zip(rows, zeroed, strict=True):
        for one, two in zip(whole.steps, other.steps, strict=True):
            if one.rows != two.rows or one.shares.keys() != two.shares.keys():
                return Check(OTHERS, False, f"without one patient a step had {two.rows} shares, with them {one.rows}")
            same = [_same_bytes(one, two, row) for row in range(one.rows) if row != gone]
            compared, changed = compared + len(same), changed + same.count(False)
    for one, two in zip(whole.steps, fewer.steps if fewer else (), strict=bool(fewer)):
        strayed += sum(not torch.allclose(one.shares[n][: two.rows], two.shares[n], rtol=1e-3, atol=1e-6) for n in two.shares)
    detail = f"{changed} of {compared} shares of others changed with one patient, {strayed} arrays of them without one"
    return Check(OTHERS, compared > 0 and not changed and not strayed, detail)


def _same_bytes(one: StepSeen, two: StepSeen, row: int) -> bool:
    return all(one.shares[name][row].numpy().tobytes() == two.shares[name][row].numpy().tobytes() for name in one.shares)


def moves_check(seen: dict[float, RoundSeen]) -> Check:
    """Without noise each step must move by the sum of its patients' shares, each within the clipping norm, and no more.

    Args:
        seen: rounds by their clipping norm.
    """
    details = [_moves(one, norm) for norm, one in seen.items()]
    found = min(details, key=lambda detail: detail[0])  # one that failed, if any has
    return Check(MOVES, *found)


def _moves(seen: RoundSeen, norm: float) -> tuple[bool, str]:
    largest = max((_largest(step) for step in seen.steps), default=0.0)
    strays = [_norm(moved.double() + _total(step, name) / norm for name, moved in step.moved.items()) for step in seen.steps]
    last = {name: value for step in seen.steps for name, value in step.after.items()}
    came = {name: last.get(name, torch.from_numpy(value)) for name, value in seen.start.items()}
    beside = _norm(torch.from_numpy(seen.update.arrays[name]).double() - value.double() for name, value in came.items())
    rows, strayed = max((step.rows for step in seen.steps), default=0), max(strays, default=0.0)
    passed = rows > 0 and largest <= norm and strayed <= ROUNDING * rows and beside == 0
    said = f"largest share {largest:.6g} of {norm:.6g}; a step strays by {strayed:.3g} norms, the round by {beside:.3g}"
    return passed, said if largest else f"{said}. {SAW_NOTHING}"


def _largest(step: StepSeen) -> float:
    """Norm of the largest share of a step."""
    size = sum((share.double().flatten(1).square().sum(1) for share in step.shares.values()), torch.zeros(step.rows).double())
    return float(size.sqrt().max()) if step.rows else 0.0


def _total(step: StepSeen, name: str) -> Tensor:
    return step.shares[name].double().sum(0) if name in step.shares else torch.zeros((), dtype=torch.float64)


def _norm(parts: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in parts))


def noises_check(seen: list[RoundSeen], norm: float) -> Check:
    """Each array's noise must be of the charged size in every step, and no array's, step's or round's that of another.

    The shares of the patients who were drawn are taken off, so that steps with and without patients are tried.
    """
    charge = seen[0].charges[0] if seen[0].charges else Charge(0.0, 0.0, 0)
    sigma = charge.noise_multiplier
    if not sigma:
        return Check(NOISES, False, "the round has no noise")
    noise = [_noise_of(one, norm, sigma) for one in seen]
    worst, where = 0.0, "nothing"
    for name, values in noise[0].items():
        both = torch.cat([one[name] for one in noise]).double()
        count = both.numel()
        strays = {
            f"size of {name}": _size_stray(float(both.square().sum()), count),
            f"mean of {name}": float(both.mean()) * math.sqrt(count),
            f"two rounds of {name}": _likeness(noise[0][name], noise[1][name]),
            **{f"steps {lag} apart of {name}": _likeness(values[:-lag], values[lag:]) for lag in (1, 2, 3)},
        }
        for what, stray in strays.items():
            worst, where = max((worst, where), (abs(stray), what))
    for one, two in combinations_with_replacement(sorted(noise[0]), 2):
        if one != two:
            stray = max(_likeness(part[one], part[two]) for part in noise)
            worst, where = max((worst, where), (stray, f"{one} and {two}"))
    return Check(NOISES, worst <= STRAY, f"largest stray {worst:.1f} standard errors ({where}), {STRAY:g} are allowed")


def _size_stray(squares: float, count: int) -> float:
    """Standard errors by which a sum of so many squares of unit normals strays, by its chi-squared tail: few values tell, too."""
    tail = min(float(chi2.cdf(squares, count)), float(chi2.sf(squares, count)))
    return float(normal.isf(tail)) if tail > 0 else math.inf


def _noise(step: StepSeen, name: str, norm: float) -> Tensor:
    """The noise of a step in clipping norms: what it moved an array by, less the patients' shares."""
    return (-step.moved[name].double() - _total(step, name) / norm).flatten()


def _noise_of(seen: RoundSeen, norm: float, sigma: float) -> dict[str, Tensor]:
    """[steps, values] by name, as unit normals; of an array that is held still in some steps, from the others."""
    names = dict.fromkeys(name for step in seen.steps for name in step.moved)
    return {name: torch.stack([_noise(s, name, norm) for s in seen.steps if name in s.moved]) / sigma for name in names}


def _likeness(one: Tensor, two: Tensor) -> float:
    """Standard errors by which two arrays' unit noise [T, values] goes together, over the values that both have."""
    steps, length = min(len(one), len(two)), min(one.shape[1], two.shape[1])
    product = one[:steps, :length].double() * two[:steps, :length].double()
    return abs(float(product.sum())) / math.sqrt(product.numel())


def _counted(model: MultiModalViT, patients: SiteData, config: RunConfig, number: int) -> Check:
    """The patients whom a round really draws, against the one charge that it made, in many steps that compute nothing."""
    drawn: list[NDArray[np.int64]] = []

    def note(point: Any, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        drawn.append(np.asarray(rows))
        return {name: value.new_zeros((len(rows), *value.shape)) for name, value in point.trained.items()}

    def of_head(_: Any, point: Any, features: Any, rows: NDArray[np.int64], *__: Any) -> dict[str, Tensor]:
        return note(point, rows)

    def of_views(_: Any, point: Any, rows: list[int], *__: Any) -> dict[str, Tensor]:
        return note(point, np.array(rows, np.int64))

    rate = config.privacy.sample_rate
    steps = min(4000, math.ceil(DRAWN / (len(patients) * max(rate * (1 - rate), 0.05))))
    instead: dict[str, Callable[..., Any]] = {
        "head_gradients": of_head,
        "patient_gradients": of_views,
        "draw_example": lambda model, patients, row, *_: row,
    }
    silent = _with(config, noise_multiplier=0.0, steps=steps)
    seen = watch(model, patients, silent, number, learning_rate=0.0, rows_alone=True, **instead)
    return rows_check(seen, drawn, len(patients), silent)


def rows_check(seen: RoundSeen, drawn: list[NDArray[np.int64]], patients: int, config: RunConfig) -> Check:
    """One charge, before the first step, of the run's noise; as many steps as it says, and patients drawn as often as it says."""
    plan = config.privacy
    due = Charge(plan.noise_multiplier, plan.sample_rate, plan.steps)
    if seen.charges != (due,) or seen.early:
        return Check(ROWS, False, f"charged {len(seen.charges)} times, or late, or other than the run's settings say")
    if len(seen.steps) != due.steps or [step.rows for step in seen.steps] != [len(rows) for rows in drawn]:
        return Check(ROWS, False, f"{len(seen.steps)} steps were taken and {due.steps} charged, or other rows used than drawn")
    sizes = iter(drawn)
    found = sampling_check(lambda count, rate: next(sizes), patients, due.sample_rate, due.steps)
    often = np.bincount(np.concatenate(drawn), minlength=patients)
    spread = math.sqrt(due.steps * due.sample_rate * (1 - due.sample_rate))
    off = float(np.abs(often - due.steps * due.sample_rate).max())
    even = len(often) == patients and off <= STRAY * spread + 1e-9
    return Check(
        ROWS, found.passed and even, f"{found.detail}; one patient {off:.0f} draws off the {due.steps * due.sample_rate:.0f} due"
    )


def leaves_check(seen: list[RoundSeen]) -> Check:
    """At learning rate 0 nothing may leave that depends on a patient: the arrays as they came, no metric but the time."""
    wrong: list[str] = []
    for one in seen:
        arrays = one.update.arrays
        moved = [name for name in one.start if name not in arrays or arrays[name].tobytes() != one.start[name].tobytes()]
        wrong += [f"array {name}" for name in moved] + [f"array {name}" for name in arrays.keys() - one.start.keys()]
        wrong += [f"metric {name}" for name in one.update.metrics.keys() - {"seconds"}]
        reply = SiteReply("site", 1, update=Update.between(arrays, one.start), metrics=one.update.metrics)
        wrong += [f"field {name}" for name in unlisted(write_reply(reply))]
    detail = (
        f"leaves beside the noised update: {', '.join(sorted(set(wrong))[:3])}" if wrong else "nothing beside the noised update"
    )
    return Check(LEAVES, not wrong, detail)


def _with(config: RunConfig, **privacy: Any) -> RunConfig:
    return replace(config, privacy=replace(config.privacy, **privacy))
