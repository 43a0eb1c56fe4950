"""What a run would take, before it is begun: time, memory and bytes, from a few patients of its own (`--dry-run`).

All cores play the run's rounds at once, each on the same few patients, as the run itself would keep them busy. What they took is
scaled by the numbers of patients, and packed onto the cores. Nothing is written but the cache of slices, which the run reads.
"""

import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from client.round.train import site_seed
from common.config.classes import require_classes
from common.config.run import RunConfig, config_from_json
from common.data.dataset import SiteData
from common.data.holdout import split
from common.errors import ConfigError
from common.messages.round import pack_arrays, record_bytes
from common.messages.update import Update
from common.messages.wire import WIRES
from common.models.arrays import Arrays, get_arrays, trained_at_sites
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.local import train_round
from common.training.predict import predict
from common.training.shared import shared
from common.training.trainable import idle_without_labels, rounds_before_tuning
from simulation.baselines import open_folders
from simulation.experiment import prepare
from simulation.experiment_plan import Experiment
from simulation.flower import resources
from simulation.processes import side_by_side
from simulation.shown import Shown

PATIENTS = 4  # of the sample, those with labels first
FINAL_PASSES = 7  # over the external patients, at the end: the answers, their checks, and without each piece of evidence
PROGRAM_MIB = 400  # of Flower's own processes, beside those that train


@dataclass(frozen=True)
class Sample:
    """What a process plays, in plain values."""

    name: str
    config: str
    folders: tuple[Path, ...]
    cache: Path


@dataclass(frozen=True)
class Played:
    """What one process took for it.

    Attributes:
        start: seconds until the first round could begin.
        rounds: seconds of each kind of round, by the first round of that kind; a round after these takes what the last took.
        predict: seconds of one pass over the sample.
        patients, labelled: of the sample.
        memory: bytes, the most that the process held.
    """

    start: float
    rounds: tuple[float, ...]
    predict: float
    patients: int
    labelled: int
    memory: int


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
    require_plain(plan.config)
    plan, refused, _ = prepare(plan, shown.note, shown.progress)
    names = [name for name in plan.sites if name not in refused]
    sites = {name: _patients(plan, name) for name in names}
    external = sum(len(_patients(plan, name)) for name in plan.external)
    workers = int(resources(len(names))["init-args-num-cpus"])
    folders = tuple(plan.data / name for name in names)
    jobs = [Sample(str(place), plan.config.to_json(), folders, plan.cache) for place in range(workers)]
    shown.note(f"Playing the rounds on {PATIENTS} patients, {workers} at once.")
    played = list(side_by_side(play, jobs, workers).values())
    training = {name: split(patients, plan.config.evaluation.holdout)[0] for name, patients in sites.items()}
    trained = {name: len(patients) for name, patients in training.items()}
    labelled = {name: len(patients.labelled) for name, patients in training.items()}
    return scaled(played, plan.config, trained, labelled, external, workers)


def require_plain(config: RunConfig) -> None:
    """Refuse what the sample does not play.

    Raises:
        ConfigError: see `estimate`.
    """
    require_classes(config, "--dry-run")
    for on, what in ((config.privacy.enabled, "privacy.enabled"), (config.personal.on, "[personal]")):
        if on:
            raise ConfigError(f"--dry-run plays plain rounds, and the run has {what}. Estimate it without: --set it off.")


def play(sample: Sample) -> Played:
    """The run's rounds on a few patients: all before tuning, and one tuning round; then one prediction."""
    torch.set_num_threads(1)
    config = config_from_json(sample.config)
    patients = open_folders(sample.folders, config, sample.cache)
    rows = [*patients.labelled, *(row for row in range(len(patients)) if patients.labels[row] < 0)][:PATIENTS]
    some, model = patients.select(np.sort(rows)), build_model(config)
    arrays, took, ready = get_arrays(model), list[float](), time.process_time()  # what imports took as well
    for number in range(1, min(rounds_before_tuning(config) + 1, config.federation.rounds) + 1):
        seed, before = site_seed(config.seed, sample.name, number), time.monotonic()
        arrays = train_round(model, arrays, some, config, round_number=number, site_seed=seed).arrays
        took.append(time.monotonic() - before)
    before = time.monotonic()
    predict(TrainedModel(model, arrays, config), some)
    after, unit = time.monotonic(), 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Played(ready, tuple(took), after - before, len(some), len(some.labelled), memory)


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
    seconds = _seconds(played, config, trained, labelled)
    one_pass, start = (float(np.mean([getattr(one, name) for one in played])) for name in ("predict", "start"))
    evaluation = config.evaluation
    subsets = 2 ** len(config.data.modalities) - 1 if evaluation.modality_subsets else 0
    looks = config.federation.rounds // evaluation.every if evaluation.every else 0
    answers = one_pass / played[0].patients * external
    alone = [float(seconds[name].sum()) + answers for name in sorted(trained) if labelled[name] and evaluation.baselines]
    pooled = [float(sum(each.sum() for each in seconds.values())) + answers] if alone else []
    down, up = travels(config)
    return Estimate(
        rounds=sum(packed(list(each), workers) for each in zip(*seconds.values(), strict=True)),
        evaluation=answers * (looks + FINAL_PASSES + subsets),
        baselines=packed([*pooled, *alone], workers) + (start if alone else 0.0),
        start=2 * start,
        memory=sum(one.memory for one in played) + PROGRAM_MIB * 2**20,
        down=down,
        up=up,
    )


def _seconds(
    played: Sequence[Played], config: RunConfig, trained: Mapping[str, int], labelled: Mapping[str, int]
) -> dict[str, NDArray[np.float64]]:
    """By site, the seconds [rounds] that each of the run's rounds would take it."""
    rounds = np.mean([one.rounds for one in played], axis=0)
    rounds = np.append(rounds, np.repeat(rounds[-1], config.federation.rounds - len(rounds)))
    heads = np.array([idle_without_labels(config, number) for number in range(1, len(rounds) + 1)])
    each = rounds / np.where(heads, max(1, played[0].labelled), played[0].patients)  # a patient
    return {name: each * np.where(heads, labelled[name], trained[name]) for name in trained}


def packed(seconds: Sequence[float], workers: int) -> float:
    """When the last of the jobs is done, the longest begun first, each on the worker that is free."""
    busy = [0.0] * max(1, workers)
    for one in sorted(seconds, reverse=True):
        busy[busy.index(min(busy))] += one
    return max(busy)


def travels(config: RunConfig) -> tuple[int, int]:
    """Bytes of arrays that a site is sent, and sends, in a round; of the largest round where sites keep something."""
    arrays: Arrays = get_arrays(build_model(config))
    sent = shared(trained_at_sites(arrays), config, 1)
    change = Update.between(sent, sent).change
    return record_bytes(pack_arrays(arrays)), record_bytes(pack_arrays(change, WIRES[config.federation.wire]))


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
