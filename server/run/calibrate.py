"""After the last round: the sites' sums over patients that never trained become one temperature, class offsets, two thresholds.

No site's answer ends a run. One that does not answer, refuses, or answers nonsense is named and weighs nothing, in either
exchange; if nobody answers, the model stays as it was trained, uncalibrated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING

import numpy as np
from flwr.serverapp import Grid
from flwr.supercore import log
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.evaluation.calibration.calibration import Calibration, Scaling, conformal_threshold, fit_temperature
from common.evaluation.calibration.offsets import fit_scaling, why_no_offsets
from common.evaluation.ood import score as ood
from common.messages.calibration import (
    CONFUSION,
    COUNT,
    FIT,
    NLL,
    OFFSETS,
    OOD_SCORES,
    SCORE,
    SCORES,
    CalibrationRequest,
)
from common.messages.round import pack_arrays
from common.models.arrays import Arrays
from server.events.kinds import IMPLAUSIBLE
from server.run.panel import Found, Panel, present, total
from server.strategy.round_loop import FedMRIAvg

NOBODY = "No class offsets: no site gave sums to fit them to."
UNFITTED = "No class offsets: a class has no held-back patient at the sites, or they would lie beyond what is tried."
LARGEST = 1e6  # of a feature; honest ones are far smaller


@dataclass(frozen=True)
class Calibrated:
    """The result of the calibration.

    Attributes:
        calibration: without sites it changes nothing: temperature 1, sets of all classes, nobody flagged.
        moments: of all its sites, added up; empty where nobody can be scored: one site's own would be published, to no use.
        scorable: whether patients can be scored: at least two sites sent their moments, and the scores that they lead to.
        failures: why a site has no part in it.
        no_offsets: why there are no class offsets, as a sentence; "" where there are.
        confusion: the held-back patients [2, C, C], before and after; rows are the truth. None where that is not known, or where
            a site keeps its numbers.
    """

    calibration: Calibration
    moments: Arrays = field(default_factory=dict)
    scorable: bool = False
    failures: Mapping[str, str] = field(default_factory=dict)
    no_offsets: str = ""
    confusion: NDArray[np.float64] | None = None


def calibrate(grid: Grid, strategy: FedMRIAvg, arrays: Arrays, config: RunConfig, number: int) -> Calibrated:
    """Ask the sites for both kinds of sums, and fit the calibration.

    Args:
        grid: Flower's, to send by.
        strategy: that trained: it knows the sites, the task and the time limits.
        arrays: of the trained model.
        config: of the run.
        number: of the last round.

    Raises:
        FederationError: the SuperLink is away.
    """
    strategy.progress.set_state("calibrating", number)
    there, failures = present(grid, strategy, number)
    panel = Panel(grid, strategy, pack_arrays(arrays), config, number, failures)
    fitted = {name: told for name, told in panel.ask(there, CalibrationRequest(FIT)).items() if _is_sound(name, told[1], panel)}
    scored: Found = {}
    while fitted:  # until all whose losses were fitted have been scored under what was fitted to them
        scaling, no_offsets = fit(fitted, config)
        moments = ood.pool(*(fitted[name][1] for name in sorted(fitted))) if len(fitted) > 1 else None
        called = [address for address in there if address.name in fitted]
        scored = panel.ask(called, CalibrationRequest(SCORE, scaling), moments)
        scored = {name: told for name, told in scored.items() if _fits(name, told[1], fitted[name][1], panel)}
        if len(scored) == len(fitted):
            break
        fitted = {name: told for name, told in fitted.items() if name in scored}
    if not fitted:
        log(WARNING, "The model is not calibrated: no site sent its sums.")
        return Calibrated(_nothing(config), failures=failures, no_offsets=why_no_offsets(config) or NOBODY)
    return replace(combine(fitted, scored, scaling, config), failures=failures, no_offsets=no_offsets)


def fit(fitted: Found, config: RunConfig) -> tuple[Scaling, str]:
    """The temperature, with class offsets where they can be had; and why there are none, or ""."""
    why = why_no_offsets(config)
    if not why:
        scaling = fit_scaling(total(fitted, OFFSETS), total(fitted, CONFUSION).sum(axis=1))
        if scaling:
            return scaling, ""
        why = UNFITTED
    return Scaling(fit_temperature(total(fitted, NLL))), why


def combine(fitted: Found, scored: Found, scaling: Scaling, config: RunConfig) -> Calibrated:
    """The calibration from the sites' sums.

    Args:
        fitted: by site, the answers to the first exchange: losses at each temperature, and moments.
        scored: by site, the answers to the second: histograms of scores.
        scaling: that was fitted, under which the second exchange's patients were scored.
        config: `evaluation` is read: coverage and the rate of flags.
    """
    plan, moments = config.evaluation, ood.pool(*(fitted[name][1] for name in sorted(fitted)))
    scorable = len(fitted) > 1 and _can_score(moments)
    shared = all(reply.counts_shared for reply, _ in fitted.values())
    calibration = Calibration(
        temperature=scaling.temperature,
        coverage=plan.coverage,
        set_threshold=conformal_threshold(total(scored, SCORES), plan.coverage),
        ood_rate=plan.ood_rate,
        ood_threshold=ood.threshold(total(scored, OOD_SCORES).astype(np.float32), plan.ood_rate) if scorable else np.inf,
        patients=int(total(fitted, COUNT)[0]) if shared else None,
        sites=tuple(sorted(fitted)),
        offsets=scaling.offsets,
    )
    log(INFO, "Calibrated by %s: temperature %.3f", ", ".join(calibration.sites), scaling.temperature)
    told = shared and not why_no_offsets(config)
    confusion = np.stack([total(found, CONFUSION) for found in (fitted, scored)]) if told else None
    return Calibrated(calibration, moments if scorable else {}, scorable, confusion=confusion)


def _nothing(config: RunConfig) -> Calibration:
    return Calibration(coverage=config.evaluation.coverage, ood_rate=config.evaluation.ood_rate)


def _is_sound(name: str, sums: Arrays, panel: Panel) -> bool:
    """Whether a site's moments can be those of patients: else they would spoil what all are scored against."""
    count = sums["ood.count"].astype(np.float64)
    mean = sums["ood.sum"] / np.maximum(count, 1.0)[:, None]  # [R, f]
    square = np.diagonal(sums["ood.outer"], axis1=1, axis2=2) / np.maximum(count, 1.0)[:, None]
    possible = (mean**2 <= square * 1.001 + 1e-6) & (square <= LARGEST**2) & ((count > 0)[:, None] | (square == 0))
    least = np.linalg.eigvalsh(sums["ood.outer"].astype(np.float64)).min(axis=1)  # of sums of outer products: never below 0
    scale = np.diagonal(sums["ood.outer"], axis1=1, axis2=2).sum(axis=1)
    if (
        (least < -1e-4 * scale - 1e-6).any()
        or not possible.all()
        or np.abs(sums["ood.outer"]).max() > LARGEST**2 * max(count.max(), 1.0)
    ):
        panel.refuse(name, "moments that no patients can have", IMPLAUSIBLE)
    return name not in panel.failures


def _can_score(moments: Arrays) -> bool:
    """Whether patients can be scored against all sites' moments together."""
    try:
        reference = ood.Reference.fit(moments)
    except np.linalg.LinAlgError:
        return False
    return bool(np.isfinite(reference.precision).all() and np.isfinite(reference.mean).all())


def _fits(name: str, sums: Arrays, before: Arrays, panel: Panel) -> bool:
    """Whether as many patients were scored as the site's losses are of."""
    scored, said = float(sums[SCORES].sum()), float(before[COUNT][0])
    if scored != said:
        panel.refuse(name, f"scores of {scored:g} patients, but losses of {said:g}", IMPLAUSIBLE)
    return scored == said
