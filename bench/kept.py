"""Measurements of many jobs, side by side, each kept in a file as soon as it is there: one that was interrupted goes on."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from common.config.run import RunConfig
from common.files import write_atomic
from common.messages.code_version import code_hash
from simulation.processes import as_they_end

J = TypeVar("J")
Result = dict[str, Any]


def identity(config: RunConfig, **more: Any) -> dict[str, Any]:
    """What results must have in common to stand in one file: the code, the configuration, and what else is named."""
    table = json.loads(config.to_json())
    table["model"]["weights"] = Path(config.model.weights).name  # results name no machine's paths
    return {"code": code_hash(), "config": table, **more}


def run_kept(
    out: Path,
    known: dict[str, Any],
    work: Callable[[J], Result],
    jobs: Mapping[str, J],
    workers: int,
    told: Callable[[Result], str],
    summary: Callable[[dict[str, Result]], dict[str, Any]] = lambda runs: {},
) -> dict[str, Result]:
    """Do the jobs that the file does not hold yet.

    Args:
        out: JSON file of results, written after each job; results of another configuration or code in it end the programme.
        known: what `identity` gives.
        work: a function of a module, and the jobs plain values, so that a new process can take them.
        jobs: by name.
        workers: processes.
        told: one sentence about a result, for the screen.
        summary: what stands in the file beside the runs.

    Returns:
        The results of these jobs, in their order.
    """
    console = Console(stderr=True)
    results = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    if results and {key: results.get(key) for key in known} != known:
        raise SystemExit(f"{out} holds results of another configuration or code. Name another file.")
    runs: dict[str, Result] = results.get("runs", {})
    waiting = {id(job): name for name, job in jobs.items() if name not in runs}
    given: list[Any] = [jobs[name] for name in waiting.values()]
    with closing(as_they_end(work, given, workers)) as ended:
        for job, found in ended:
            runs[waiting[id(job)]] = found
            content = known | summary(runs) | {"runs": dict(sorted(runs.items()))}
            write_atomic(out, (json.dumps(content) + "\n").encode())
            done = sum(name in runs for name in jobs)
            console.print(f"{waiting[id(job)]}: {told(found)}; {done} of {len(jobs)}", highlight=False)
    return {name: runs[name] for name in jobs}
