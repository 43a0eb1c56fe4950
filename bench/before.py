"""Today's code beside that of an earlier commit, in turns: rounds of the real recipe, predictions, virtual sites.

    git worktree add --detach BEFORE 2a60dec; (cd BEFORE && make setup)
    python bench/before.py OUT.json --before BEFORE [--weights FILE] [--patient FOLDER] [--only TEXT] [--sites 16]

Processor seconds of processes with one thread each, medians of five turns (two for what takes over a minute), both sides with the
configurations of the earlier commit. Rounds are of noise, whose time is that of any images; without `--weights` so are the
weights. Virtual sites are timed by the clock, since Ray detaches its processes: the earlier side runs through Ray, today's in the
pool. What is done is kept in OUT.json: an interrupted run goes on.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kept import Result, run_kept

from common.messages.code_version import code_hash
from simulation.phantom.hospitals import write_hospitals

NOW = Path(__file__).resolve().parents[1]
CHILD = NOW / "bench" / "before_child.py"
TURNS, LONG_TURNS = 5, 2
HEAD, LATER_HEAD, TUNING = "1", "2", "3"  # rounds of the real recipe of 2a60dec: two for the head, then tuning
REAL_PATIENTS = 15  # that train at the largest hospital of the recipe's federation
MANY = 100
DEFAULTS = {"vit-s": "", "vit-s joint": "[model]\nblocks = 2\njoint_blocks = 2\n[data]\nslices = 8\n"}


@dataclass(frozen=True)
class Job:
    """One turn of one side.

    Attributes:
        part: a function of `PARTS`.
        side: the checkout, with its `.venv`.
        before: the earlier checkout, whose configurations both sides use.
        work: a folder for what is made on the way.
        name: of the turn, for a folder of its own.
        options: of the part.
    """

    part: str
    side: Path
    before: Path
    work: Path
    name: str
    options: tuple[str, ...] = ()


def main() -> None:
    """Measure what the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--before", required=True, type=Path, metavar="DIR", help="a checkout of 2a60dec, with its .venv")
    parser.add_argument("--weights", type=Path, help="DeiT-Tiny's; else they are drawn")
    parser.add_argument("--patient", type=Path, help="folder of a patient for one prediction; else a phantom")
    parser.add_argument("--only", default="", metavar="TEXT", help="parts whose name holds this")
    parser.add_argument("--sites", type=int, default=16, help="virtual ones, of four patients each")
    arguments = parser.parse_args()
    before = arguments.before.resolve()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=before, capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="fedmri-bench-") as folder:
        work = Path(folder)
        weights = str(arguments.weights.resolve()) if arguments.weights else "random"
        patient = str(arguments.patient.resolve()) if arguments.patient else ""
        options = {"rounds": (weights,), "one": (patient,), "many": (), "sites": (str(arguments.sites),)}
        known = {"code": code_hash(), "before": commit, "own weights": bool(arguments.weights), "own patient": bool(patient)}
        jobs = {
            name: job
            for part, turns in {"rounds": LONG_TURNS, "one": TURNS, "many": LONG_TURNS, "sites": LONG_TURNS}.items()
            if arguments.only in part
            for turn in range(turns)
            for side in ("before", "now")
            for name in [f"{part} {turn} {side}"]
            for job in [Job(part, before if side == "before" else NOW, before, work, name, options[part])]
        }
        run_kept(arguments.out, known, measure, jobs, 1, lambda found: json.dumps(found["seconds"]), table)
    print(json.dumps(json.loads(arguments.out.read_text(encoding="utf-8"))["ratios"], indent=2))


def measure(job: Job) -> Result:
    """One turn of one side: seconds by what took them."""
    found = {name: round(value, 3) for name, value in PARTS[job.part](job).items()}
    return {"part": job.part, "side": "now" if job.side == NOW else "before", "seconds": found}


def table(runs: dict[str, Result]) -> dict[str, Any]:
    """Medians of both sides and their ratios, of what both have."""
    medians: dict[str, dict[str, float]] = {"before": {}, "now": {}}
    for side, found in medians.items():
        of_side = [run["seconds"] for run in runs.values() if run["side"] == side]
        for name in {name for seconds in of_side for name in seconds}:
            found[name] = statistics.median([seconds[name] for seconds in of_side if name in seconds])
    both = sorted(medians["before"].keys() & medians["now"].keys())
    return {"medians": medians, "ratios": {name: round(medians["now"][name] / medians["before"][name], 3) for name in both}}


def rounds(job: Job) -> dict[str, float]:
    """Of the real recipe: the first head round, a later one, a tuning round."""
    [weights] = job.options
    config = job.before / "configs" / "real.toml"
    answer = run_in(job, str(CHILD), "rounds", str(config), weights, str(REAL_PATIENTS), HEAD, LATER_HEAD, TUNING)
    seconds = json.loads(answer)
    return {
        "first head round": seconds[HEAD],
        "second head round": seconds[LATER_HEAD],
        "tuning round": seconds[TUNING],
    }


def one(job: Job) -> dict[str, float]:
    """An answer for one patient, from Python's start to its end: modalities that meet in all blocks, and in the last two."""
    [patient] = job.options
    found = {}
    for name, text in DEFAULTS.items():
        config = job.work / f"{name}.toml"
        config.write_text(text)
        found[f"one patient, {name}"] = predicted(job, config, "make", Path(patient) if patient else phantoms(job, 1) / "first")
    return found


def many(job: Job) -> dict[str, float]:
    """A hundred phantoms by the demonstration's model of then."""
    return {f"{MANY} patients, demo": predicted(job, job.before / "configs" / "demo.toml", "", phantoms(job, MANY))}


def predicted(job: Job, config: Path, weights: str, patients: Path) -> float:
    """Processor seconds of `fedmri-site predict` without evidence."""
    run = job.work / f"{config.stem} {job.side.name} {job.side == NOW}"
    if not run.exists():
        run_in(job, str(CHILD), "model", str(config), weights, str(run))
    before = children_seconds()
    program = "client.cli.main" if (job.side / "client" / "cli").is_dir() else "client.cli"
    run_in(job, "-m", program, "predict", str(patients), "--model", str(run), "--evidence", "none")
    return children_seconds() - before


def phantoms(job: Job, number: int) -> Path:
    """So many patients; `first` among them is a link to one."""
    folder = job.work / f"phantoms {number}"
    if not folder.exists():
        write_hospitals(folder, sites=2, patients=1, external=number, seed=7)
        in_words_of_then(folder)
        if number == 1:
            (folder / "external" / "first").symlink_to(min((folder / "external").glob("sub-*")), target_is_directory=True)
    return folder / "external"


def in_words_of_then(hospitals: Path) -> None:
    """Take out of every site's settings what the earlier commit does not know."""
    for file in hospitals.glob("*/site.toml"):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if not line.startswith("survey")), encoding="utf-8")


def sites(job: Job) -> dict[str, float]:
    """Seconds by the clock of rounds of many virtual sites: the demonstration's recipe with two head rounds and two others."""
    [number] = job.options
    data = job.work / f"{number} sites"
    if not data.exists():
        write_hospitals(data, sites=int(number), patients=4, external=4, seed=7)
        in_words_of_then(data)
    out, cache = job.work / job.name, job.work / f"cache {job.side == NOW}"
    changed = ["rounds=4", "head_rounds=2", "every=0", "baselines=false", "modality_subsets=false", "bootstrap=0"]
    settings = [word for setting in changed for word in ("--set", setting)]
    where = ["--data", str(data), "--external", "external", "--out", str(out), "--cache", str(cache)]
    config = ["--config", str(job.before / "configs" / "demo.toml")]
    run_in(job, str(job.side / ".venv" / "bin" / "fedmri-sim"), "run", *config, *settings, *where)
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    first, second, *tuning = [line["seconds"] for line in lines]
    return {
        f"{number} sites, first head round": first,
        f"{number} sites, second head round": second,
        f"{number} sites, tuning round": statistics.median(tuning),
    }


PARTS: dict[str, Callable[[Job], dict[str, float]]] = {"rounds": rounds, "one": one, "many": many, "sites": sites}


def run_in(job: Job, *arguments: str) -> str:
    """What a Python of the job's side prints last, with one thread.

    Raises:
        SystemExit: it fails; says its last words.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [str(job.side / ".venv" / "bin" / "python"), *arguments]
    done = subprocess.run(command, cwd=job.side, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job.name}: {arguments[:2]} ended with {done.returncode}: {done.stderr[-600:]}")
    return done.stdout.strip().rpartition("\n")[2]


def children_seconds() -> float:
    """User and system seconds of the processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
