"""What a gate must remember over messages: one at a time, each stage of a secure round once, one sum for what training reads,
where a run began, which patients sums for calibration were of."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import IO

from common.config.run import RunConfig
from common.errors import AuditLogError, FederationError, PolicyError, WeightsError
from common.files import locked, write_atomic
from common.messages.secure_aggregation import OUT_OF_STEP, inputs_hash
from common.models.arrays import Arrays, arrays_sha256

LOCK_NAME, STAGES_NAME, RUNS_NAME = "gate.lock", "secure-stages.txt", "runs.txt"
SPLIT_NAME = "calibration-split.txt"
TRAINED_NAME, SUMMED_NAME = "secure-trained.txt", "secure-summed.txt"
KEPT = 10_000  # lines


def alone(state: Path) -> IO[bytes]:
    """One message at a time: the lock, held until it is closed."""
    try:
        return locked(state / LOCK_NAME)
    except OSError as error:
        raise AuditLogError(f"{state}: cannot be written to ({error.strerror}). Nothing left the site.") from error


def require_once(state: Path, session: str, stage: str) -> None:
    """Refuse a stage of a secure round that was asked before: its secrets must never answer twice. Call it while `alone`.

    Raises:
        FederationError: it was, or that cannot be told.
    """
    name = hashlib.sha256(f"{session}\0{stage}".encode()).hexdigest()
    if not _add(state / STAGES_NAME, name):
        raise FederationError(f"Stage {stage!r} of this secure round was asked before.", public=OUT_OF_STEP, rule="replay")


def require_unsummed(state: Path, session: str, config: RunConfig, round_number: int, arrays: Arrays) -> None:
    """Refuse to train for a sum what was summed before, in whatever run: the sums' difference could be one site's update.

    Settings of evaluation, names and new attempts change nothing of what training reads. A round that failed before its masks
    were taken off gave no sum, and may be asked for again. Call it while `alone`, before the site trains.

    Raises:
        FederationError: it was, or that cannot be told.
    """
    inputs = inputs_hash(config, round_number, arrays).hex()
    if inputs in _lines(state / SUMMED_NAME):
        raise FederationError(
            f"Round {round_number} trains what was summed before: with other sites in the sum, or fewer, the difference could "
            "tell a site's update. Change the run's seed, so that it begins elsewhere.",
            public=f"{OUT_OF_STEP}: the site has taken part in a sum of this training before",
            rule="replay",
        )
    _add(state / TRAINED_NAME, f"{_session(session)} {inputs}")


def note_summed(state: Path, session: str) -> None:
    """Note that the masks of a round are about to be taken off. Call it while `alone`, before any share is given away.

    Raises:
        FederationError: the site did not train in it, or another round has summed the same, or that cannot be told.
    """
    found = [line.split()[1] for line in _lines(state / TRAINED_NAME) if line.split()[0] == _session(session)]
    if not found:
        raise FederationError("This site did not train in this secure round.", public=OUT_OF_STEP)
    if not _add(state / SUMMED_NAME, found[-1]):
        raise FederationError("The training of this secure round was summed in another.", public=OUT_OF_STEP, rule="replay")


def _session(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()[:32]


def require_pinned_start(state: Path, run: str, arrays: Arrays, pinned: str) -> None:
    """Refuse a run whose first request at this site does not begin with the pinned arrays, whatever its round number.

    Raises:
        WeightsError: it does not; the server cannot know by how much.
    """
    name = hashlib.sha256(run.encode()).hexdigest()
    if name in _lines(state / RUNS_NAME):
        return
    found = arrays_sha256(arrays)
    if found != pinned:
        raise WeightsError(
            f"policy.initial_sha256 of site.toml is {pinned[:12]}; the run's first request here began with {found[:12]}.",
            public="the run is not the one that the site pinned (initial_sha256)",
            rule="policy.initial_sha256",
        )
    _add(state / RUNS_NAME, name)


def require_one_split(state: Path, config: RunConfig) -> None:
    """Refuse sums for calibration over other groups of the patients than those that have left before.

    Who is held back, and who counts as labelled, is decided by settings that a server chooses. Of two hold-outs that differ by
    one patient the sums differ by that patient's own numbers, whatever `policy.min_patients` says of each.

    Raises:
        PolicyError: sums over other groups have left.
    """
    known = _lines(state / SPLIT_NAME)
    if known and _split(config) not in known:
        raise PolicyError(
            f"Sums for calibration have left this site with another [data] or evaluation.holdout than "
            f"{config.evaluation.holdout:g}: their differences could tell of single patients. Nothing left the site. "
            f"To calibrate this run all the same, remove {state / SPLIT_NAME}.",
            public="the site has shared sums for calibration over another hold-out (evaluation.holdout or [data])",
            rule="calibration-split",
        )


def keep_split(state: Path, config: RunConfig) -> None:
    """Note that sums over these groups are about to leave."""
    _add(state / SPLIT_NAME, _split(config))


def _split(config: RunConfig) -> str:
    """All settings that decide which patients are in which sum."""
    task = {"classes": config.task.classes, "label": config.task.label}  # beside the data's settings, as sites have it noted
    data = replace(config.data, standard=()).of_slices()  # which scale their images have decides of nobody
    told = {"holdout": config.evaluation.holdout, "data": data | task}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _add(path: Path, name: str) -> bool:
    """Write one more line, on the disk when this returns; False where it was there."""
    lines = _lines(path)
    if name in lines:
        return False
    try:
        write_atomic(path, "".join(line + "\n" for line in [*lines, name][-KEPT:]).encode())
    except OSError as error:
        raise FederationError(f"{path}: cannot be written ({error.strerror}). The request was refused.") from error
    return True


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
