"""What training with modality dropout is worth when modalities are missing: the same federation with it and without.

    fedmri-sim phantom DIR --sites 4 --patients 24 --external 300 --seed 7
    python bench/modalities.py bench/modalities.json --data DIR --seeds 0 1 2
    python bench/modalities.py bench/modalities-real.json --config real --set weights=FILE --data DIR --folds du cs fg+ez

Arms: `dropout`, the configuration as it is; `none`, objective.modality_dropout=0 and nothing else: full-modality masking, which
is the paper's own answer to missing modalities, stays on, so that the difference is dropout's alone; `bare`, which also sets
objective.masked_modalities=none: nothing in training prepares for missing modalities but what hospitals really lack. All arms
have the same seeds, rounds and steps. Every fold's patients are predicted, from every subset, by a model that never saw their
site.

Sites train in this program, by the very functions that Flower's clients call. What is done is kept in OUT: an interrupted
measurement goes on.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import identity, run_kept
from numpy.typing import NDArray
from options import hospital_options
from rich.console import Console
from rich.table import Table

from common.cli import config_path
from common.config.run import RunConfig, config_from_json, load_config
from common.config.site import find_sites
from common.data.cache import default_cache
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.evaluation.subsets import answer_subsets, measure_subsets
from common.metrics.bootstrap import confusion, draw_counts, mcc, t_interval
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from simulation.baselines import open_patients
from simulation.in_process import federate

ARMS = ("dropout", "none", "bare")
Guesses = dict[str, list[int]]  # subset -> each patient's class, -1 where the patient has none of it


@dataclass(frozen=True)
class Job:
    """One federation for each fold, in plain values that a new process can take."""

    arm: str
    config: str
    data: Path
    folds: tuple[str, ...]
    cache: Path

    @property
    def name(self) -> str:
        """Under which its result is kept."""
        return f"{self.arm}, seed {config_from_json(self.config).seed}"


def arm_of(config: RunConfig, arm: str, seed: int) -> RunConfig:
    """The configuration of one arm."""
    objective = config.objective if arm == "dropout" else replace(config.objective, modality_dropout=0.0)
    objective = replace(objective, masked_modalities="none") if arm == "bare" else objective
    return replace(config, seed=seed, objective=objective)


def run_job(job: Job) -> dict[str, Any]:
    """Train, ask for every subset of each fold's external patients, and measure all of them together."""
    torch.set_num_threads(1)
    config = config_from_json(job.config)
    names = sorted(folder.name for folder in find_sites(job.data))
    sites = {name: _open(job, config, name) for name in names}
    labels, whole, parts = [], [], []
    for fold in job.folds:
        external = fold.split("+")
        model = build_model(config)
        arrays = federate(model, {name: sites[name] for name in names if name not in external}, config)
        for name in external:
            patients = sites[name].select(sites[name].labelled)
            trained = TrainedModel(model, arrays, config)
            full = predict(trained, patients)
            labels.append(patients.labels)
            whole.append(full)
            parts.append(answer_subsets(trained, patients, full=full))
    truth, full = np.concatenate(labels), np.concatenate(whole)
    answers = {subset: np.concatenate([part[subset] for part in parts]) for subset in parts[0]}
    found = measure_subsets(answers, truth, full, config)
    return {
        "arm": job.arm,
        "seed": config.seed,
        "modality_dropout": config.objective.modality_dropout,
        "masked_modalities": config.objective.masked_modalities,
        "subsets": {
            name: {"n": entry["n"], "mcc": entry["mcc"], "auroc": entry["auroc"]["macro"], "drop": entry["drop"]}
            for name, entry in found.items()
        },
        "labels": truth.tolist(),
        "guesses": {name: _guess(p) for name, p in answers.items()},
    }


def _guess(probabilities: NDArray[np.float64]) -> list[int]:
    known = np.asarray(np.isfinite(probabilities).all(1))
    return [int(p.argmax()) if here else -1 for p, here in zip(probabilities, known.tolist(), strict=True)]


def _open(job: Job, config: RunConfig, name: str) -> SiteData:
    site = read_site(job.data / name, config, simulated=True)
    return open_patients(site, config, job.cache)


def summary(run: dict[str, Any]) -> tuple[float, float]:
    """MCC of the full set, and the mean over the subsets that lack something."""
    values = [entry["mcc"]["value"] for entry in run["subsets"].values()]  # the full set comes last
    return values[-1], float(np.mean(values[:-1]))


def resampled(run: dict[str, Any], counts: NDArray[np.float64], classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`summary` on every resample of the patients [R] and [R]."""
    labels, drawn = np.array(run["labels"]), []
    for name in run["subsets"]:
        guess = np.array(run["guesses"][name])
        rows = guess >= 0
        drawn.append(mcc(confusion(labels[rows], guess[rows], classes, counts[:, rows])))
    return drawn[-1], np.mean(drawn[:-1], axis=0)


def gains(runs: list[dict[str, Any]], arm: str, config: RunConfig) -> dict[str, Any]:
    """`dropout` minus another arm over the seeds that both have, with 95% intervals over patients (same resamples, all seeds)."""
    table = {(run["arm"], run["seed"]): run for run in runs}
    seeds = sorted(seed for name, seed in table if name == arm and ("dropout", seed) in table)
    if not seeds:
        return {}
    pairs = [(table["dropout", seed], table[arm, seed]) for seed in seeds]
    counts = draw_counts(len(runs[0]["labels"]), config.evaluation.bootstrap, np.random.default_rng(0))
    found: dict[str, Any] = {"seeds": seeds}
    for place, what in enumerate(("full", "incomplete")):
        each = [summary(ours)[place] - summary(theirs)[place] for ours, theirs in pairs]
        found[what] = {"each": each, "value": float(np.mean(each))}
        if counts is not None:
            C = len(config.task.classes)
            drawn = [resampled(ours, counts, C)[place] - resampled(theirs, counts, C)[place] for ours, theirs in pairs]
            found[what] |= t_interval(found[what]["value"], np.mean(drawn, axis=0), counts.shape[1])
    return found


def show(console: Console, runs: list[dict[str, Any]], config: RunConfig) -> None:
    """A table of all subsets, the means over seeds of each arm, and what dropout gains over the others."""
    arms = [arm for arm in ARMS if any(run["arm"] == arm for run in runs)]
    table = Table(title="external MCC, mean of the seeds")
    for column in ("modalities", "n", *arms):
        table.add_column(column, justify="left" if column == "modalities" else "right")
    for name, entry in runs[0]["subsets"].items():
        values = [np.mean([run["subsets"][name]["mcc"]["value"] for run in runs if run["arm"] == arm]) for arm in arms]
        table.add_row(name, str(entry["n"]), *(f"{value:.3f}" for value in values))
    for place, what in enumerate(("full set", "mean of incomplete subsets")):
        means = [np.mean([summary(run)[place] for run in runs if run["arm"] == arm]) for arm in arms]
        table.add_row(what, "", *(f"{value:.3f}" for value in means), style="bold")
    console.print(table)
    for arm in arms[1:]:
        found = gains(runs, arm, config)
        for what in ("incomplete", "full") if found else ():
            gain = found[what]
            span = f" ({gain['low']:.3f} to {gain['high']:.3f})" if gain.get("low") is not None else ""
            console.print(f"dropout minus {arm}, {what}: {gain['value']:+.3f}{span}; seeds {[round(x, 3) for x in gain['each']]}")


def measure(arguments: argparse.Namespace) -> None:
    """Run what is not there yet."""
    config = load_config(config_path(arguments.config), tuple(arguments.set))
    cache, folds = default_cache() / "slices", tuple(arguments.folds)
    configs = [(arm, arm_of(config, arm, seed)) for seed in arguments.seeds for arm in arguments.arms]
    jobs = [Job(arm, changed.to_json(), arguments.data, folds, cache) for arm, changed in configs]

    def told(run: dict[str, Any]) -> str:
        full, incomplete = summary(run)
        return f"full set {full:.3f}, mean of incomplete subsets {incomplete:.3f}"

    def gained(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
        others = [arm for arm in arguments.arms if arm != "dropout"]
        return {"gains": {f"dropout minus {arm}": gains(list(runs.values()), arm, config) for arm in others}}

    known, by_name = identity(config, data=arguments.data.name, folds=list(folds)), {job.name: job for job in jobs}
    runs = run_kept(arguments.out, known, run_job, by_name, arguments.workers, told, gained)
    show(Console(width=110), list(runs.values()), config)


def main() -> None:
    """Entry point."""
    parser = hospital_options(__doc__)
    parser.add_argument("--folds", nargs="+", default=["external"], help="external sites; joined by +, left out together")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["dropout", "none"])
    parser.add_argument("--workers", type=int, default=2)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
