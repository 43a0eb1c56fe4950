"""After the last round, where sites keep something of the model (`[personal]`): global and personal model at each site.

Each is measured on the site's own held-back patients, by the site, and told under the rules of the sums that calibrate the model.
No site's answer ends a run. C classes.
"""

from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from flwr.supercore import log
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.evaluation.calibration.calibration import TEMPERATURES
from common.evaluation.stages.choice import HeldBack
from common.messages.calibration import CONFUSION, NLL, OWN, CalibrationRequest, apart
from common.messages.round import pack_arrays
from common.models.arrays import Arrays
from common.training.shared import kept_names
from server.run.panel import Panel, present
from server.strategy.round_loop import FedMRIAvg

NOBODY_HELD_BACK = "Not measured: nobody is held back at the sites (evaluation.holdout = 0)."
UNSCALED_AT = int(np.argmin(np.abs(TEMPERATURES - 1.0)))


def own_models(grid: Grid, strategy: FedMRIAvg, arrays: Arrays, config: RunConfig, number: int) -> dict[str, Any]:
    """`personal` of report.json; {} where sites have nothing of their own.

    Args:
        grid: Flower's, to send by.
        strategy: that trained: it knows the sites, the task and the time limits.
        arrays: of the global model that is kept.
        config: of the run.
        number: of the last round.

    Raises:
        FederationError: the SuperLink is away.
    """
    plan = config.personal
    if not plan.on:
        return {}
    last = config.federation.rounds
    told = {"kept": list(plan.keep), "arrays": kept_names(sorted(arrays), config, last), "ditto_lambda": plan.ditto_lambda}
    if not config.evaluation.holdout:
        return told | {"why": NOBODY_HELD_BACK, "sites": {}, "failures": {}}
    strategy.progress.set_state("calibrating", number)
    there, failures = present(grid, strategy, number)
    found = Panel(grid, strategy, pack_arrays(arrays), config, number, failures).ask(there, CalibrationRequest(OWN))
    for name, reason in sorted(failures.items()):
        log(WARNING, "Global and personal model: %s: %s", name, reason)
    log(INFO, "Global and personal model: measured at %s", ", ".join(sorted(found)) or "no site")
    sites = {}
    for name, (reply, sums) in sorted(found.items()):
        both = [measured(part[NLL], part[CONFUSION], config.task.classes, reply.counts_shared) for part in apart(sums)]
        sites[name] = dict(zip(("global", "own"), both, strict=True))
    return told | {"why": "", "sites": sites, "failures": failures}


def measured(nll: NDArray[Any], confusion: NDArray[Any], classes: tuple[str, ...], shared: bool) -> dict[str, Any]:
    """What a site's held-back patients say of one model, uncalibrated: `loss` a patient, `recall` (mean over the classes).

    Args:
        nll: [T], summed over the patients.
        confusion: [C, C], patients by class and answer; rows are the truth.
        classes: their names.
        shared: whether the site's numbers of patients may be told: `patients`, and `right` of `of` by class.
    """
    right, of = np.diag(confusion).astype(int), confusion.sum(axis=1).astype(int)
    recall = HeldBack(nll, confusion, None).recall
    told = {
        "loss": round(float(nll[UNSCALED_AT]) / max(int(of.sum()), 1), 3) if of.sum() else None,
        "recall": None if recall is None else round(recall, 3),
    }
    if not shared:
        return told
    return told | {
        "patients": int(of.sum()),
        "classes": {name: {"right": int(r), "of": int(n)} for name, r, n in zip(classes, right, of, strict=True)},
    }
