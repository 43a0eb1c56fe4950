"""One site's round for the peers of `bench/peers.py`: our model and our training, arrays as one vector."""

import json
import time
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from client.round.train import site_seed
from common.config.run import RunConfig, load_config
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.models.arrays import Arrays, flat, get_arrays, shaped
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.training.local import train_round
from common.training.trainable import unlabelled_weight

Vector = NDArray[np.float32]


class PeerSite:
    """Whatever frameworks need of a site; kept for the life of a process, as ours are.

    Args:
        folder: of the bench, with `data`, `cache` and `run.toml`.
    """

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)  # as our workers: sites share the cores
        self.folder = folder

    @cached_property
    def config(self) -> RunConfig:
        """Of the run."""
        return load_config(self.folder / "run.toml")

    @cached_property
    def model(self) -> MultiModalViT:
        """With the run's first arrays."""
        return build_model(self.config)

    @property
    def first(self) -> Arrays:
        """The arrays that a run begins with."""
        return get_arrays(self.model)

    def patients(self, name: str) -> SiteData:
        """From the slice cache."""
        return _opened(self.folder, name, self.config)

    def train(self, name: str, vector: Vector, round_number: int, out: Path) -> tuple[Vector, float]:
        """A round from 1; the new vector, and the site's weight in the mean. `out` takes the time at which it ended."""
        arrays = {key: value.astype(np.float32) for key, value in shaped(vector.astype(np.float64), self.first).items()}
        seed = site_seed(self.config.seed, name, round_number)
        update = train_round(self.model, arrays, self.patients(name), self.config, round_number=round_number, site_seed=seed)
        others = update.patients - update.labelled
        with (out / f"{name}.times").open("a") as times:
            times.write(json.dumps([round_number, time.time()]) + "\n")
        weight = update.labelled + unlabelled_weight(self.config, round_number) * others
        return flat(update.arrays).astype(np.float32), weight


@lru_cache(maxsize=64)
def _opened(folder: Path, name: str, config: RunConfig) -> SiteData:
    return open_site(read_site(folder / "data" / name, config, simulated=True), config.data, folder / "cache", workers=1)


@lru_cache(maxsize=1)
def peer_site(folder: Path) -> PeerSite:
    """The one of this process."""
    return PeerSite(folder)
