"""After the last round, before the calibration: which of the run's global arrays are kept (`common.evaluation.stages`).

All candidates go to the sites in one request: an exchange costs a hospital far more time than some megabytes do. They come from
the checkpoints, so that a resumed run asks the same again and ends in the same bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Any

from flwr.serverapp import Grid
from flwr.supercore import log

from common.config.run import RunConfig
from common.errors import FedMRIError
from common.evaluation.stages.candidates import AVERAGE, LAST, Candidate, candidates
from common.evaluation.stages.choice import DIGITS, HeldBack, choose, losses, why_no_choice
from common.messages.calibration import CHOOSE, CONFUSION, COUNT, NLL, OFFSETS, CalibrationRequest, apart
from common.messages.round import pack_arrays
from common.models.arrays import Arrays
from server.run.panel import Found, Panel, present
from server.strategy.round_loop import FedMRIAvg

NOBODY = "The last round is kept: no site gave sums over held-back patients to choose by."
UNASKED = "As the configuration says; nobody was asked."
DAMAGED = "The last round is kept: the checkpoint of an earlier one cannot be used."
NO_TUNING = "The last round is kept: there is no other candidate. Tuning rounds, or head rounds to interpolate with, are lacking."


@dataclass(frozen=True)
class Kept:
    """The arrays that the run keeps, and `stage` of report.json."""

    arrays: Arrays
    told: dict[str, Any] = field(default_factory=dict)


def keep_stage(
    grid: Grid, strategy: FedMRIAvg, load: Callable[[int], Arrays], arrays: Arrays, config: RunConfig, last: int
) -> Kept:
    """The global arrays to keep.

    Args:
        grid: Flower's, to send by.
        strategy: that trained: it knows the sites, the task and the time limits.
        load: the global arrays after a round.
        arrays: of the last round.
        config: of the run; `evaluation.stage` says what is chosen from.
        last: number of the last round.

    Raises:
        FederationError: the SuperLink is away.
    """
    stage = config.evaluation.stage
    if stage == LAST:
        return Kept(arrays)
    told = {"asked": stage, "kept": f"round {last}"}
    found, why = opened(load, config, last)
    if not found:
        return Kept(arrays, told | {"why": why})
    if stage == AVERAGE:
        return Kept(found[0].arrays, told | {"kept": found[0].name, "why": UNASKED})
    sums, failures = ask(grid, strategy, arrays, found, config, last)
    known = [HeldBack(part[NLL], part[CONFUSION], part.get(OFFSETS)) for part in summed(sums)]
    if not known or not known[0].confusion.any():
        return Kept(arrays, told | {"why": NOBODY, "failures": failures})
    shared = all(reply.counts_shared for reply, _ in sums.values())
    kept, rows = judge(found, known)
    log(INFO, "Kept: %s, by the held-back patients of %s", kept.name, ", ".join(sorted(sums)))
    return Kept(
        kept.arrays,
        told
        | {
            "kept": kept.name,
            "why": "",
            "sites": sorted(sums),
            "patients": int(known[0].confusion.sum()) if shared else None,
            "candidates": rows,
            "failures": failures,
        },
    )


def opened(load: Callable[[int], Arrays], config: RunConfig, last: int) -> tuple[list[Candidate], str]:
    """The candidates; where there is nothing to choose from none, and why."""
    if why := why_no_choice(config):
        return [], why
    try:
        found = candidates(config.evaluation.stage, load, last, config.training.head_rounds, config.training.ssl_rounds)
    except FedMRIError as error:
        log(WARNING, "Choice of the stage: %s", error)
        return [], DAMAGED
    return ([], NO_TUNING) if found[0].round == last and len(found) == 1 else (found, "")


def judge(found: Sequence[Candidate], known: Sequence[HeldBack]) -> tuple[Candidate, list[dict[str, Any]]]:
    """The best candidate, and a line for each: `name`, `round`, `loss` a patient, `recall` before offsets."""
    values = losses(known)
    rows = [
        {"name": one.name, "round": one.round, "loss": round(value, DIGITS), "recall": said.recall}
        for one, value, said in zip(found, values, known, strict=True)
    ]
    return found[choose(values)], rows


def ask(
    grid: Grid, strategy: FedMRIAvg, arrays: Arrays, found: Sequence[Candidate], config: RunConfig, number: int
) -> tuple[Found, dict[str, str]]:
    """Each site's sums over all candidates, and why others have no part in it."""
    strategy.progress.set_state("calibrating", number)
    there, failures = present(grid, strategy, number)
    panel = Panel(grid, strategy, pack_arrays(arrays), config, number, failures)
    packed = [pack_arrays(one.arrays) for one in found]
    sums = panel.ask(there, CalibrationRequest(CHOOSE, candidates=len(found)), candidates=packed)
    return sums, failures


def summed(sums: Found) -> list[dict[str, Any]]:
    """Each candidate's sums over all sites, in the order of their names, so that equal answers give equal bits."""
    parts = [apart(sums[site][1]) for site in sorted(sums)]
    names = (NLL, COUNT, CONFUSION, OFFSETS)
    return [
        {name: sum(one[name].astype("float64") for one in same) for name in names if name in same[0]}
        for same in zip(*parts, strict=True)
    ]
