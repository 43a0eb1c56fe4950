"""`fedmri-sim sweep`: run what a grid declares and is not done yet, and put all arms into one table."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from common.config.run import config_from_json
from common.errors import FederationError
from common.files import write_atomic
from server.run.plan import require_fresh
from simulation.cluster import Cluster
from simulation.cluster_check import require_alike
from simulation.processes import Workers, as_they_end
from simulation.sweep.grid import Grid
from simulation.sweep.job import EXTERNAL, HELD, Result, run_job
from simulation.sweep.measures import LOG_LOSS, MCC, Answers, balanced_log_loss, compare
from simulation.sweep.plan import Job, plan_sweep
from simulation.sweep.study import Kept
from simulation.sweep.table import markdown

TABLE_NAME, JSON_NAME = "table.md", "table.json"
DIGITS = 3  # of a log-loss: what is equal as printed is equally good

Note = Callable[[str], None]
Progress = Callable[[str, int, int], None]


def run_sweep(grid: Grid, out: Path, cache: Path, workers: Workers, note: Note, progress: Progress) -> dict[str, Any]:
    """Do it.

    Args:
        grid: as it was read.
        out: folder of the sweep; of an earlier sweep it keeps the runs of equal configuration, patients and code.
        cache: of slices.
        workers: runs side by side, each with one thread, or the cluster that does them.
        note: called with each sentence that the user should read now.
        progress: called with what, done, in all.

    Returns:
        The table, as it stands in `table.json` (see `tabled`).

    Raises:
        ConfigError, DataError, WeightsError: what the grid names cannot be run; nothing has been.
        FederationError: the folder is another run's, the cluster cannot be used, or a process was killed. What is done is kept.
    """
    jobs = plan_sweep(grid, cache)
    out = out.expanduser().resolve()
    require_fresh(out)
    if isinstance(workers, Cluster):
        require_alike(workers, sorted({folder.parent for job in jobs for folder in (*job.sites, *job.external)}))
    kept = Kept(out, jobs)
    done = kept.done()
    results = {job.name: done[job.identity] for job in jobs if job.identity in done}
    waiting = [job for job in jobs if job.name not in results]
    note(f"{len(jobs)} runs of {len(grid.every_arm)} arms; {len(results)} were done before and are kept.")
    if stale := len(done.keys() - {job.identity for job in jobs}):
        note(f"{stale} earlier runs here are of other settings, patients or code, and have no part.")
    progress("runs", len(results), len(jobs))
    try:
        with closing(as_they_end(run_job, waiting, workers)) as ended:
            for job, result in ended:
                results[job.name] = result
                kept.keep(job, result, _value(result))
                note(f"{job.name}: " + (result.get("error") or f"held-back log-loss {_value(result):.3f}"))
                progress("runs", len(results), len(jobs))
    except BrokenProcessPool as error:
        raise FederationError(
            "A process of the sweep was killed, by want of memory most often. What is done is kept: give the same command again, "
            "with a smaller --workers."
        ) from error
    finally:  # of a sweep that is cut off, too
        table = tabled(grid, jobs, results)
        _write(out, table)
    return table


def _write(out: Path, table: Mapping[str, Any]) -> None:
    write_atomic(out / JSON_NAME, (json.dumps(table, indent=1) + "\n").encode())
    write_atomic(out / TABLE_NAME, markdown(table).encode())


def tabled(grid: Grid, jobs: Sequence[Job], results: Mapping[str, Result]) -> dict[str, Any]:
    """The arms in the order of the grid.

    Returns:
        `arms`, each with `name`, `settings`, `runs` done of `of`, `errors`, and of an arm whose runs are all done `held_back` and
        `external` as `simulation.sweep.measures.compare` gives them; `chosen`, the name of the arm of smallest log-loss on
        held-back patients (of equal ones that of larger MCC, then the first), None where no arm is whole.
    """
    found = []
    for arm in grid.every_arm:
        own = [job for job in jobs if job.arm == arm.name]
        errors = [f"{job.name}: {results[job.name]['error']}" for job in own if "error" in results.get(job.name, {})]
        runs = sum("error" not in results.get(job.name, {"error": ""}) for job in own)
        found.append({"name": arm.name, "settings": list(arm.settings), "runs": runs, "of": len(own), "errors": errors})
    whole = [str(row["name"]) for row in found if row["runs"] == row["of"]]
    config = config_from_json(jobs[0].config)
    for part in (HELD, EXTERNAL):
        index: dict[str, int] = {}
        arms = [_by_seed(row["name"], jobs, results, part, index) if row["name"] in whole else None for row in found]
        rows = compare(arms, len(index), config.evaluation.bootstrap, grid.seeds[0])
        found = [row | {part: told} for row, told in zip(found, rows, strict=True)]
    places = list(dict.fromkeys(job.place for job in jobs))
    return {"chosen": choose(found), "seeds": list(grid.seeds), "places": places, "arms": found}


def choose(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Name of the arm of smallest log-loss on held-back patients. Reads nothing of the external hospital."""

    def rank(row: Mapping[str, Any]) -> tuple[float, float]:
        loss, agreement = row[HELD][LOG_LOSS]["value"], row[HELD][MCC]["value"]
        return round(loss, DIGITS), -round(agreement, DIGITS) if agreement is not None else 1.0

    known = [row for row in rows if row[HELD] is not None]
    return str(min(known, key=rank)["name"]) if known else None


def _by_seed(arm: object, jobs: Sequence[Job], results: Mapping[str, Result], part: str, index: dict[str, int]) -> list[Answers]:
    """One arm's answers of each seed, all places together; `index` numbers the patients, by hospitals and id, as they come."""
    found: dict[int, list[tuple[int, int, list[float]]]] = {}
    for job in jobs:
        if job.arm != arm:
            continue
        told = results[job.name][part]
        rows = found.setdefault(job.seed, [])
        for patient, label, probabilities in zip(told["patients"], told["labels"], told["probabilities"], strict=True):
            who = f"{job.hospitals}/{patient}"
            rows.append((index.setdefault(who, len(index)), label, probabilities))
    return [
        Answers(np.array([r[0] for r in rows], int), np.array([r[1] for r in rows], int), np.array([r[2] for r in rows]))
        for rows in found.values()
    ]


def _value(result: Result) -> float | None:
    """Class-balanced log-loss of one run's held-back patients; None of a run that failed."""
    if "error" in result:
        return None
    labels, probabilities = np.array(result[HELD]["labels"]), np.array(result[HELD]["probabilities"])
    return float(balanced_log_loss(labels, probabilities, np.ones((1, len(labels))))[0])
