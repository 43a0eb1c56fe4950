"""What a linear probe on a frozen backbone gives at a hospital that was left out: files of weights side by side.

    fedmri-sim phantom DIR --sites 4 --patients 24 --external 300 --seed 7
    python bench/backbones.py OUT.json --data DIR [DIR ...] --weights phantom random FILE

Logistic regression (`simulation.probe`) on all labelled patients of the other hospitals, asked about those of `external`. It
sees the features of each modality by itself. What is done is kept in OUT.json: an interrupted run goes on.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import Result, identity, run_kept

from common.cli import config_path
from common.config.run import RunConfig, load_config
from common.config.site import find_sites
from common.data.cache import default_cache
from common.metrics.classification import evaluate
from common.models.build import build_model
from common.training.predict import frozen_features
from simulation.baselines import open_folders
from simulation.probe import linear_probe

EXTERNAL = "external"


@dataclass(frozen=True)
class Job:
    """One file of weights on one federation."""

    data: Path
    weights: str
    config: str
    cache: Path


def main() -> None:
    """Measure every pair that the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--weights", nargs="+", default=["phantom", "random"], metavar="NAME")
    parser.add_argument("--config", default="demo", metavar="NAME")
    parser.add_argument("--cache", type=Path, default=default_cache() / "slices", metavar="DIR")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    jobs = {
        f"{data.name} {weights}": Job(data, weights, asked.config, asked.cache)
        for data in asked.data
        for weights in asked.weights
    }
    run_kept(asked.out, identity(_config(asked.config, "random")), probe, jobs, asked.workers, _line)


def probe(job: Job) -> Result:
    """One job, here and now."""
    torch.set_num_threads(1)
    config = _config(job.config, job.weights)
    training = open_folders([f for f in find_sites(job.data) if f.name != EXTERNAL], config, job.cache)
    external = open_folders([job.data / EXTERNAL], config, job.cache)
    known, model = training.select(training.labelled), build_model(config)
    train, asked = (frozen_features(model, patients, config) for patients in (known, external))
    said = linear_probe(train, known.labels, asked, classes=len(config.task.classes))
    found = evaluate(external.labels, said, config.task.classes, bootstrap=1000, generator=np.random.default_rng(config.seed))
    return {"data": job.data.name, "weights": Path(job.weights).name, "sha256": model.backbone_sha256, "external": found}


def _config(name: str, weights: str) -> RunConfig:
    return load_config(config_path(name), (f"model.weights={weights}", "evaluation.batch_size=32"))


def _line(result: dict[str, Any]) -> str:
    found = result["external"]
    mcc, area = found["mcc"], found["auroc"]["macro"]
    interval = f"{mcc['low']:.2f} to {mcc['high']:.2f}"
    return f"{result['data']} {result['weights']}: MCC {mcc['value']:.3f} ({interval}), AUROC {area:.3f}, {found['n']} patients"


if __name__ == "__main__":
    main()
