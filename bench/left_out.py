"""What a setting gives at hospitals that did not train, chosen inside the training hospitals: each of them left out in turn.

    fedmri-sim phantom DIR --sites 4 --patients 24 --external 0 --seed SEED
    python bench/left_out.py OUT.json --data DIR [DIR ...] [--config demo] [--set KEY=VALUE] --rounds 3 6

No external hospital is looked at. Each job trains a federation without one labelled hospital (`simulation.in_process`, a fifth of
its patients held back as in a run) and asks the model about that one's patients, after each of the rounds named. Variants are
files side by side. What is done is kept in OUT.json: an interrupted measurement goes on.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import Result, identity, run_kept

from common.cli import config_path
from common.config.run import RunConfig, config_from_json, load_config
from common.config.site import find_sites
from common.data.cache import default_cache
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.data.holdout import split
from common.metrics.classification import evaluate
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from simulation.baselines import open_patients
from simulation.in_process import rounds

EXTERNAL = "external"


@dataclass(frozen=True)
class Job:
    """One federation without one hospital, in plain values that a new process can take."""

    data: Path
    left: str
    config: str
    rounds: tuple[int, ...]
    cache: Path


def main() -> None:
    """Measure every hospital that the file does not hold yet, and print all of them together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--config", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", nargs="+", type=int, help="after which the hospital is asked (default: the last)")
    parser.add_argument("--cache", type=Path, default=default_cache() / "slices", metavar="DIR")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    config = load_config(config_path(asked.config), (*asked.set, "evaluation.batch_size=32"))
    numbers = tuple(asked.rounds or [config.federation.rounds])
    jobs = {
        f"{data.name} {left}": Job(data, left, config.to_json(), numbers, asked.cache)
        for data in asked.data
        for left in labelled_sites(data, config)
    }
    runs = run_kept(asked.out, identity(config, rounds=list(numbers)), leave_out, jobs, asked.workers, _line)
    for number in numbers:
        print(f"after round {number}: {_together(runs, str(number), config)}")


def labelled_sites(data: Path, config: RunConfig) -> list[str]:
    """Training hospitals with a labelled patient, by name."""
    sites = {folder.name: read_site(folder, config) for folder in find_sites(data) if folder.name != EXTERNAL}
    return sorted(name for name, site in sites.items() if any(case.label >= 0 for case in site.cases))


def leave_out(job: Job) -> Result:
    """One job, here and now."""
    torch.set_num_threads(1)
    config = config_from_json(job.config)
    sites = {folder.name: _open(folder, config, job.cache) for folder in find_sites(job.data) if folder.name != EXTERNAL}
    asked = sites.pop(job.left)
    asked = asked.select(asked.labelled)
    training = {name: split(patients, config.evaluation.holdout)[0] for name, patients in sites.items()}
    model, answers = build_model(config), {}
    for number, arrays in enumerate(rounds(model, training, config), 1):
        if number in job.rounds:
            answers[str(number)] = predict(TrainedModel(model, arrays, config), asked).tolist()
    return {"labels": asked.labels.tolist(), "answers": answers}


def _open(folder: Path, config: RunConfig, cache: Path) -> SiteData:
    return open_patients(read_site(folder, config), config, cache)


def _together(runs: Mapping[str, Result], number: str, config: RunConfig) -> str:
    labels = np.concatenate([np.array(run["labels"], np.int64) for run in runs.values()])
    answers = np.concatenate([np.array(run["answers"][number]) for run in runs.values()])
    return _said(labels, answers, config)


def _said(labels: Any, answers: Any, config: RunConfig) -> str:
    generator = np.random.default_rng(config.seed)
    found = evaluate(labels, answers, config.task.classes, bootstrap=1000, generator=generator)
    loss = -np.log(np.clip(answers[np.arange(len(labels)), labels], 1e-6, 1))
    even = np.mean([loss[labels == label].mean() for label in np.unique(labels)])
    mcc, area = found["mcc"], found["auroc"]["macro"]
    interval = f"{mcc['low']:.2f} to {mcc['high']:.2f}"
    return f"{len(labels)} patients, MCC {mcc['value']:.3f} ({interval}), AUROC {area['value']:.3f}, log-loss by class {even:.3f}"


def _line(result: Result) -> str:
    labels, last = np.array(result["labels"]), list(result["answers"].values())[-1]
    return f"{np.mean(np.array(last).argmax(1) == labels):.2f} of {len(labels)} right"


if __name__ == "__main__":
    main()
