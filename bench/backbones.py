"""What a linear probe on a frozen backbone gives at a hospital that was left out, and what a backbone costs.

    fedmri-sim phantom DIR --sites 4 --patients 24 --external 300 --seed 7
    python bench/backbones.py OUT.json --data DIR [DIR ...] --weights phantom random FILE
    python bench/backbones.py OUT.json --costs real brainiac

Logistic regression (`simulation.probe`) on all labelled patients of the other hospitals, asked about those of `external`. It
sees the features of each modality by itself. What is done is kept in OUT.json: an interrupted run goes on. Costs are of one
patient with all four modalities, by configuration, on one thread: an answer, one tuning step, and memory beyond the
program's own. They need neither patients nor weights: the time is that of any.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import Result, identity, run_kept

from common.cli import config_path
from common.config.axes import squares
from common.config.run import RunConfig, load_config
from common.config.site import find_sites
from common.data.cache import default_cache
from common.data.dataset import SiteData
from common.metrics.classification import evaluate
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.local import train_round
from common.training.predict import frozen_features, predict
from common.training.trainable import rounds_before_tuning, trained_names
from simulation.baselines import open_folders
from simulation.probe import linear_probe

EXTERNAL = "external"
TIMES = 3  # that each is measured; the shortest counts
MIB = 2**20


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
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--data", nargs="+", type=Path, metavar="DIR")
    wanted.add_argument("--costs", nargs="+", metavar="CONFIG", help="configurations whose backbones are timed")
    parser.add_argument("--weights", nargs="+", default=["phantom", "random"], metavar="NAME")
    parser.add_argument("--config", default="demo", metavar="NAME")
    parser.add_argument("--cache", type=Path, default=default_cache() / "slices", metavar="DIR")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    if asked.costs:
        configs = {name: _cost_config(name) for name in asked.costs}
        run_kept(asked.out, identity(next(iter(configs.values()))), cost, {name: name for name in configs}, 1, _cost_line)
        return
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


def cost(name: str) -> Result:
    """One configuration, in a process of its own: the most memory that a process held is never given back."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_cost, name).result()


def _cost(name: str) -> Result:
    torch.set_num_threads(1)
    config, before = _cost_config(name), _peak()
    model, patient = build_model(config), _patient(config)
    arrays, number = get_arrays(model), rounds_before_tuning(config) + 1
    frozen = sum(value.numel() for value in model.vit.parameters() if not value.requires_grad)
    built = _peak() - before
    answer = _seconds(lambda: predict(TrainedModel(model, arrays, config), patient))
    answered = _peak() - before
    step = _seconds(lambda: train_round(model, arrays, patient, config, round_number=number, site_seed=0))
    return {
        "config": name,
        "backbone": config.model.backbone,
        "frozen": frozen,
        "trained": sum(arrays[one].size for one in trained_names(sorted(arrays), config, number)),
        "images": len(squares(config.data)),
        "answer_seconds": answer,
        "step_seconds": step,
        "model_mib": built / MIB,
        "answer_mib": answered / MIB,
        "step_mib": (_peak() - before) / MIB,
    }


def _seconds(work: Callable[[], object]) -> float:
    took = []
    for _ in range(TIMES):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return min(took)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _patient(config: RunConfig) -> SiteData:
    """One patient of noise, with all modalities."""
    data = config.data
    shape = (1, len(squares(data)), len(data.modalities), data.size, data.size)
    images = np.random.default_rng(0).random(shape).astype(np.float16)
    return SiteData("one", ("sub-0001",), images, np.ones((1, shape[2]), bool), np.zeros(1, np.int64), "")


def _cost_config(name: str) -> RunConfig:
    """With four modalities, untrained, in steps of one patient, and one tuning round."""
    settings = ('data.modalities=["t1", "t1c", "t2", "flair"]', "weights=random", "training.batch_size=1", "precision=fp32")
    rounds = rounds_before_tuning(load_config(config_path(name), settings)) + 1
    return load_config(config_path(name), (*settings, f"federation.rounds={rounds}", "local_epochs=1"))


def _cost_line(found: Result) -> str:
    memory = ", ".join(f"{what} {found[f'{what}_mib']:.0f}" for what in ("model", "answer", "step"))
    return (
        f"{found['backbone']}: {found['trained']} parameters trained beside {found['frozen']}; an answer "
        f"{found['answer_seconds']:.1f} s, a tuning step {found['step_seconds']:.1f} s a patient; MiB: {memory}"
    )


def _config(name: str, weights: str) -> RunConfig:
    return load_config(config_path(name), (f"model.weights={weights}", "evaluation.batch_size=32"))


def _line(result: dict[str, Any]) -> str:
    found = result["external"]
    mcc, area = found["mcc"], found["auroc"]["macro"]
    interval = f"{mcc['low']:.2f} to {mcc['high']:.2f}"
    return f"{result['data']} {result['weights']}: MCC {mcc['value']:.3f} ({interval}), AUROC {area:.3f}, {found['n']} patients"


if __name__ == "__main__":
    main()
