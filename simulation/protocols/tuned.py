"""Protocols that train by gradients: a head on the frozen backbone, adapters, and the whole from end to end.

Each is the pooled training of `simulation.baselines` on the labelled training patients, by their images and the classification
term alone: head rounds first, so that no backbone follows a head that knows nothing (Kumar et al., ICLR 2022), then epochs. Rate
and epoch are chosen inside these patients: a part of them, each patient whole, is held back from a first training at every rate;
then all of them train by what had the least class-balanced log-loss on that part. The external hospital has no part in it.
"""

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from client.round.train import site_seed
from common.adapters.adapter import Adapter
from common.adapters.bitfit import BitFit
from common.adapters.bottleneck import Bottleneck
from common.adapters.full import Full
from common.adapters.head import HeadOnly
from common.adapters.lora import LoRA
from common.config.run import RunConfig, config_from_json
from common.data.dataset import SiteData
from common.errors import ConfigError, FedMRIError
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.local import train_round
from common.training.predict import predict
from common.training.trainable import trained_names
from simulation.baselines import open_folders, split_folders
from simulation.protocols.linear_probe import FOLDS, balanced_log_loss, stratified
from simulation.protocols.protocol import Answer

EPOCHS, RATES = 5, (1e-4, 1e-3)
WHOLE = 0.1  # of these rates where everything is trained: LoRA's best rate is about ten times that (Biderman et al., TMLR 2024)
MEGABYTE = 1e6
NAME = "pooled"  # of the one site that trains, for its seeds

# The radiology study's LoRA is on these three (arXiv 2312.02366); its rank of 48 is for a ViT-L.
TUNED: dict[str, tuple[str, Adapter]] = {
    "head": ("head, frozen backbone", HeadOnly()),
    "bitfit": ("BitFit", BitFit()),
    "lora": ("LoRA", LoRA(rank=8, alpha=16.0, targets=("qkv", "fc1", "fc2"))),
    "bottleneck": ("bottleneck adapters", Bottleneck(rank=8)),
    "full": ("end to end", Full()),
}


@dataclass(frozen=True)
class Tuning:
    """How all of them train: `epochs` after the head rounds, at the best of `rates`; from end to end at a tenth of these."""

    epochs: int = EPOCHS
    rates: tuple[float, ...] = RATES

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= 1000:
            raise ConfigError(f"--epochs: expected 1 to 1000, got {self.epochs}.")
        if not self.rates or not all(0 < rate <= 1 for rate in self.rates):
            raise ConfigError(f"--rates: expected learning rates above 0 and up to 1, got {list(self.rates)}.")

    def rates_of(self, name: str) -> list[float]:
        """The smallest first, of a protocol of `TUNED`."""
        return sorted(float(f"{rate * WHOLE:.3g}") if TUNED[name][1].trains_backbone else rate for rate in self.rates)


@dataclass(frozen=True)
class Job:
    """One protocol, in plain values that a new process can take.

    Attributes:
        name: in `TUNED`.
        config: of the run, as JSON.
        tuning: rates and epochs.
        sites, external: folders of the patients who train, and of those who are asked.
        cache: of slices.
    """

    name: str
    config: str
    tuning: Tuning
    sites: tuple[Path, ...]
    external: tuple[Path, ...]
    cache: Path


@dataclass(frozen=True, eq=False)
class Tuned:
    """What a job gives.

    Attributes:
        answer: None where it could not be done.
        why: it could not.
        seconds: of the process's one thread, choice and last training and answers.
        peak_megabytes: the most memory that the process took, libraries included.
    """

    answer: Answer | None
    why: str
    seconds: float
    peak_megabytes: float


def run_tuned(job: Job) -> Tuned:
    """One protocol, here and now."""
    torch.set_num_threads(1)
    config = config_from_json(job.config)
    external = open_folders(job.external, config, job.cache)
    training, _ = split_folders(job.sites, config, job.cache)
    started = time.process_time()
    try:
        labelled = training.select(training.labelled).without_covariates()
        answer = tuned_answer(job.name, labelled, external.without_covariates(), config, job.tuning)
    except FedMRIError as error:
        return Tuned(None, str(error).rstrip("."), 0.0, 0.0)
    return Tuned(answer, "", time.process_time() - started, peak_megabytes())


def tuned_answer(name: str, training: SiteData, external: SiteData, config: RunConfig, tuning: Tuning) -> Answer:
    """Choose, train and answer.

    Args:
        name: in `TUNED`.
        training: labelled patients.
        external: who is asked.
        config: of the run; its data, batches, head rounds, views and head are the protocol's too.
        tuning: rates and epochs.

    Raises:
        ConfigError: an adapter that does not fit the backbone.
    """
    rate, epoch, how = choose(name, training, config, tuning)
    own = tuned_config(config, TUNED[name][1], rate, tuning.epochs)
    *_, arrays = train(training, own, epoch)
    said = predict(TrainedModel(build_model(own), arrays, own), external)
    return Answer(said[None], trained_values(arrays, own), f"rate {rate:g}, epoch {epoch} of {tuning.epochs}, {how}")


def choose(name: str, training: SiteData, config: RunConfig, tuning: Tuning) -> tuple[float, int, str]:
    """Rate, epoch, and how they were found; the smaller rate and the earlier epoch win a tie."""
    labels = np.asarray(training.labels)
    counts = np.bincount(labels)
    if (counts > 0).sum() < 2 or counts[counts > 0].min() < 2:
        return min(tuning.rates_of(name)), tuning.epochs, "fixed: a class has one patient"
    back = stratified(labels, min(FOLDS, int(counts[counts > 0].min())), np.random.default_rng(config.seed)) == 0
    rest, held = training.select(np.flatnonzero(~back)), training.select(np.flatnonzero(back))
    found = []
    for rate in tuning.rates_of(name):
        own = tuned_config(config, TUNED[name][1], rate, tuning.epochs)
        model = build_model(own)
        for epoch, arrays in enumerate(train(rest, own, tuning.epochs), 1):
            said = predict(TrainedModel(model, arrays, own), held)
            found.append((balanced_log_loss(np.asarray(held.labels), said), rate, epoch))
    _, rate, epoch = min(found)
    return rate, epoch, f"by {len(held)} of the training patients"


def tuned_config(config: RunConfig, adapter: Adapter, rate: float, epochs: int) -> RunConfig:
    """The run's configuration with this adapter, the classification term alone, and an epoch a round after the head rounds.

    Norms and tokens stay as they are, so that what is trained is what the adapter's name says, and the head.
    """
    terms = config.objective
    for term in terms.terms:
        terms = terms if term.name == config.task.term else terms.without(term.name)
    head_rounds = max(1, config.training.head_rounds)
    return replace(
        config,
        model=replace(config.model, adapter=adapter, train_norms=False, train_tokens=False),
        objective=terms,
        training=replace(config.training, learning_rate=rate, local_epochs=1, ssl_rounds=0, head_rounds=head_rounds),
        federation=replace(config.federation, rounds=head_rounds + epochs),
    )


def train(training: SiteData, config: RunConfig, epochs: int) -> Iterator[Arrays]:
    """The arrays after each epoch, of a federation of one."""
    model = build_model(config)
    arrays, before = get_arrays(model), config.training.head_rounds
    for number in range(1, before + epochs + 1):
        seed = site_seed(config.seed, NAME, number)
        arrays = train_round(model, arrays, training, config, round_number=number, site_seed=seed).arrays
        if number > before:
            yield arrays


def trained_values(arrays: Arrays, config: RunConfig) -> int:
    """How many numbers an epoch trains; what iBOT's patches alone would need of the head does not count."""
    names = trained_names(sorted(arrays), config, config.federation.rounds)
    return sum(arrays[name].size for name in names if not name.startswith("head.patch."))


def peak_megabytes() -> float:
    """The most memory that this process ever took, libraries included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE
