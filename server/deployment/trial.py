"""A run's rounds, played on a few patients: what they take says what the run will take, before it begins (`--dry-run`)."""

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.config.classes import require_classes
from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.messages.round import pack_arrays, record_bytes
from common.messages.update import Update
from common.messages.wire import WIRES
from common.models.arrays import get_arrays, trained_at_sites
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.local import train_round
from common.training.predict import predict
from common.training.shared import shared
from common.training.trainable import idle_without_labels, rounds_before_tuning

PATIENTS = 4  # of the sample, those with labels first
FINAL_PASSES = 7  # over the external patients, at the end: the answers, their checks, and without each piece of evidence
PROGRAM_MIB = 400  # of Flower's own processes, beside those that train


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


def require_plain(config: RunConfig) -> None:
    """Refuse what the sample does not play.

    Raises:
        ConfigError: a private run, or one in which sites keep something of their own: their rounds are others.
    """
    require_classes(config, "--dry-run")
    for on, what in ((config.privacy.enabled, "privacy.enabled"), (config.personal.on, "[personal]")):
        if on:
            raise ConfigError(f"--dry-run plays plain rounds, and the run has {what}. Estimate it without: --set it off.")


def play(patients: SiteData, config: RunConfig, seed: Callable[[int], int]) -> Played:
    """The run's rounds on a few of the patients: all before tuning, and one tuning round; then one prediction.

    Args:
        patients: of whom `PATIENTS` are taken.
        config: of the run.
        seed: of a round, by its number.
    """
    rows = [*patients.labelled, *(row for row in range(len(patients)) if patients.labels[row] < 0)][:PATIENTS]
    some, model = patients.select(np.sort(rows)), build_model(config)
    arrays, took, ready = get_arrays(model), list[float](), time.process_time()  # what imports took as well
    for number in range(1, min(rounds_before_tuning(config) + 1, config.federation.rounds) + 1):
        before = time.monotonic()
        arrays = train_round(model, arrays, some, config, round_number=number, site_seed=seed(number)).arrays
        took.append(time.monotonic() - before)
    before = time.monotonic()
    predict(TrainedModel(model, arrays, config), some)
    after, unit = time.monotonic(), 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Played(ready, tuple(took), after - before, len(some), len(some.labelled), memory)


def round_seconds(
    played: Sequence[Played], config: RunConfig, trained: Mapping[str, int], labelled: Mapping[str, int]
) -> dict[str, NDArray[np.float64]]:
    """By site, the seconds [rounds] that each of the run's rounds would take it.

    Args:
        played: of each process.
        config: of the run.
        trained: patients who train, by site.
        labelled: of these, those with a label: who alone are worked on in head rounds.
    """
    rounds = np.mean([one.rounds for one in played], axis=0)
    rounds = np.append(rounds, np.repeat(rounds[-1], config.federation.rounds - len(rounds)))
    heads = np.array([idle_without_labels(config, number) for number in range(1, len(rounds) + 1)])
    each = rounds / np.where(heads, max(1, played[0].labelled), played[0].patients)  # a patient
    return {name: each * np.where(heads, labelled[name], trained[name]) for name in trained}


def evaluation_seconds(answers: float, config: RunConfig) -> float:
    """Of the whole run's looks at the external patients; `answers`: seconds of one pass over them."""
    evaluation = config.evaluation
    subsets = 2 ** len(config.data.modalities) - 1 if evaluation.modality_subsets else 0
    looks = config.federation.rounds // evaluation.every if evaluation.every else 0
    return answers * (looks + FINAL_PASSES + subsets)


def travels(config: RunConfig) -> tuple[int, int]:
    """Bytes of arrays that a site is sent, and sends, in a round; of the largest round where sites keep something."""
    arrays = get_arrays(build_model(config))
    sent = shared(trained_at_sites(arrays), config, 1)
    change = Update.between(sent, sent).change
    return record_bytes(pack_arrays(arrays)), record_bytes(pack_arrays(change, WIRES[config.federation.wire]))
