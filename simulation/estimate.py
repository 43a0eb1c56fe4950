"""What a run would take, before it is begun: time, memory and bytes, from a few patients of its own (`--dry-run`).

All cores play the run's rounds at once, each on the same few patients, as the run itself would keep them busy. What they took is
scaled by the numbers of patients, and packed onto the cores. Nothing is written but the cache of slices, which the run reads.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.round.train import site_seed
from common.config.run import RunConfig, config_from_json
from common.data.dataset import SiteData
from common.data.holdout import split
from server.deployment import trial
from server.deployment.trial import PATIENTS, PROGRAM_MIB, Played, evaluation_seconds, require_plain, round_seconds, travels
from simulation.baselines import open_folders
from simulation.experiment import prepare
from simulation.experiment_plan import Experiment
from simulation.flower import resources
from simulation.processes import side_by_side
from simulation.shown import Shown


@dataclass(frozen=True)
class Sample:
    """What a process plays, in plain values."""

    name: str
    config: str
    folders: tuple[Path, ...]
    cache: Path


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        rounds, evaluation, baselines, start: seconds by the clock, each part by itself.
        memory: bytes, all processes that train together, and Flower's.
        down, up: bytes that a site is sent and sends in a round.
    """

    rounds: float
    evaluation: float
    baselines: float
    start: float
    memory: int
    down: int
    up: int

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.rounds + self.evaluation + self.baselines + self.start

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"seconds": self.seconds, **asdict(self)}


def estimate(plan: Experiment, shown: Shown) -> Estimate:
    """Read the data, play the sample on every core that the run would use, and scale.

    Args:
        plan: of the run.
        shown: says how far it is.

    Raises:
        ConfigError: a private run, or one in which sites keep something of their own: their rounds are others.
        DataError: as the run itself would.
    """
    imports = time.process_time()  # this program has read what the run's will; those that play are forked with it
    require_plain(plan.config)
    plan, refused, _ = prepare(plan, shown.note, shown.progress)
    names = [name for name in plan.sites if name not in refused]
    sites = {name: _patients(plan, name) for name in names}
    external = sum(len(_patients(plan, name)) for name in plan.external)
    workers = int(resources(len(names))["init-args-num-cpus"])
    folders = tuple(plan.data / name for name in names)
    jobs = [Sample(str(place), plan.config.to_json(), folders, plan.cache) for place in range(workers)]
    shown.note(f"Playing the rounds on {PATIENTS} patients, {workers} at once.")
    played = [replace(one, start=imports + one.start) for one in side_by_side(play, jobs, workers).values()]
    training = {name: split(patients, plan.config.evaluation.holdout)[0] for name, patients in sites.items()}
    trained = {name: len(patients) for name, patients in training.items()}
    labelled = {name: len(patients.labelled) for name, patients in training.items()}
    return scaled(played, plan.config, trained, labelled, external, workers)


def play(sample: Sample) -> Played:
    """The run's rounds on a few patients: all before tuning, and one tuning round; then one prediction."""
    torch.set_num_threads(1)
    config = config_from_json(sample.config)
    patients = open_folders(sample.folders, config, sample.cache)
    return trial.play(patients, config, partial(site_seed, config.seed, sample.name))


def scaled(
    played: Sequence[Played],
    config: RunConfig,
    trained: Mapping[str, int],
    labelled: Mapping[str, int],
    external: int,
    workers: int,
) -> Estimate:
    """The whole run's figures.

    Args:
        played: of each core.
        config: of the run.
        trained: patients who train, by site.
        labelled: of these patients, by site, those with a label: who alone are worked on in head rounds. A site that has any is a
            baseline of its own.
        external: patients.
        workers: processes side by side.
    """
    seconds = round_seconds(played, config, trained, labelled)
    one_pass, start = (float(np.mean([getattr(one, name) for one in played])) for name in ("predict", "start"))
    answers = one_pass / played[0].patients * external
    alone = [float(seconds[name].sum()) + answers for name in sorted(trained) if labelled[name] and config.evaluation.baselines]
    pooled = [float(sum(each.sum() for each in seconds.values())) + answers] if alone else []
    down, up = travels(config)
    return Estimate(
        rounds=sum(packed(list(each), workers) for each in zip(*seconds.values(), strict=True)),
        evaluation=evaluation_seconds(answers, config),
        baselines=packed([*pooled, *alone], workers) + (start if alone else 0.0),
        start=2 * start,
        memory=sum(one.memory for one in played) + PROGRAM_MIB * 2**20,
        down=down,
        up=up,
    )


def packed(seconds: Sequence[float], workers: int) -> float:
    """When the last of the jobs is done, the longest begun first, each on the worker that is free."""
    busy = [0.0] * max(1, workers)
    for one in sorted(seconds, reverse=True):
        busy[busy.index(min(busy))] += one
    return max(busy)


def _patients(plan: Experiment, name: str) -> SiteData:
    return open_folders((plan.data / name,), plan.config, plan.cache)


def told(found: Estimate) -> str:
    """One paragraph for the terminal."""
    minutes = {name: f"{getattr(found, name) / 60:.1f}" for name in ("seconds", "rounds", "evaluation", "baselines")}
    return (
        f"About {minutes['seconds']} minutes on {os.cpu_count()} cores as busy as now: rounds {minutes['rounds']}, external "
        f"evaluation {minutes['evaluation']}, baselines {minutes['baselines']}. About {found.memory / 2**30:.1f} GiB of memory. "
        f"Each site is sent {found.down / 1e6:.2f} MB a round and sends {found.up / 1e6:.2f} MB at most. "
        "Nothing was trained or kept."
    )
