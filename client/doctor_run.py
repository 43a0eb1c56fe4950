"""Doctor, the agreed run: weights, the patients' files, and two batches of training that leave nothing behind."""

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.doctor import FAILED, OK, WARNING, Row
from client.home import SiteHome
from client.training import Place, own_weights
from common.cli import config_path
from common.config import DataConfig, RunConfig, load_config
from common.data.cache import default_cache, open_site
from common.data.cases import Site, read_site
from common.data.check import check_site
from common.errors import FedMRIError
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.training.device import choose_device
from common.training.local import train_round
from common.training.private import private_round

BATCHES = 2


def check_run(home: SiteHome, name: str, *, quick: bool) -> Iterator[Row]:
    """Weights, data and the trial.

    Args:
        name: of the agreed configuration, or its file; "": only what needs none.
        quick: neither data nor trial.
    """
    config, model = None, None
    if name:
        try:
            config = own_config(home, load_config(config_path(name)))
            model = build_model(config)
        except FedMRIError as error:
            yield Row("weights", FAILED, str(error), "Set weights under [connection] in site.toml to the agreed file.")
        else:
            yield _backbone(home, model)
    else:
        yield _weights_file(home)
    if quick:
        return
    rows, site = _data(home, config.data if config else DataConfig())
    yield rows
    if config is None:
        yield Row("trial", WARNING, "Not tried.", "Name the agreed run: --config NAME, or the file that the coordinator sent.")
    elif model is not None and site is not None:
        yield _trial(site, model, config)


def own_config(home: SiteHome, config: RunConfig) -> RunConfig:
    """The configuration as it is trained here: with the site's own file of weights, where it names one."""
    weights = own_weights(Place(home.name, home.toml, default_cache(), simulated=False))
    return replace(config, model=replace(config.model, weights=weights)) if weights else config


def _weights_file(home: SiteHome) -> Row:
    weights = home.config.connection.weights
    if not weights:
        return Row("weights", WARNING, "Not looked at.", "Name the agreed run with --config.")
    path = home.folder / Path(weights).expanduser()
    if not path.is_file():
        return Row("weights", FAILED, f"{path}: no such file.", "Set weights under [connection] in site.toml to the agreed file.")
    return Row("weights", OK, f"{path} is there; --config tells whether it is the right one.")


def _backbone(home: SiteHome, model: MultiModalViT) -> Row:
    pinned = home.config.policy.backbone_sha256
    if pinned and pinned != model.backbone_sha256:
        said = f"policy.backbone_sha256 is {pinned[:12]}..., the weights are {model.backbone_sha256[:12]}..."
        return Row("weights", FAILED, said, "Fetch the agreed file, or ask the coordinator what has changed.")
    said = f"{model.backbone_name}, SHA-256 {model.backbone_sha256}"
    return Row("weights", OK, f"{said}, as pinned." if pinned else f"{said}; not pinned in site.toml.")


def _data(home: SiteHome, data: DataConfig) -> tuple[Row, Site | None]:
    see = f"Run: fedmri-site check {home.folder}"
    try:
        site = read_site(home.toml, data)
        result = check_site(site, data)
    except FedMRIError as error:
        return Row("data", FAILED, str(error), see), None
    if result.problems:
        return Row("data", FAILED, f"{len(result.problems)} problems among {result.patients} patients.", see), None
    labelled = result.patients - result.classes["unlabelled"]
    said = f"{result.patients} patients, {labelled} labelled; every file opens."
    if result.warnings:
        return Row("data", WARNING, f"{said} {len(result.warnings)} oddities.", see), site
    if result.patients < home.config.policy.min_patients:
        advice = "Nothing leaves but adapters, whatever share_counts says."
        return Row("data", WARNING, f"{said} Fewer than policy.min_patients.", advice), site
    return Row("data", OK, said), site


def _trial(site: Site, model: MultiModalViT, config: RunConfig) -> Row:
    """Train on a few patients, in a cache that is thrown away; nothing is charged, nothing is kept."""
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="fedmri-doctor-") as cache:
            update = train_two_batches(site, model, config, Path(cache))
    except FedMRIError as error:
        return Row("trial", FAILED, str(error), "Set it right as said.")
    except RuntimeError as error:  # out of memory, above all
        words = str(error).splitlines()[0][:200]
        return Row("trial", FAILED, f"Training failed: {words}", "With too little memory, ask for a smaller training.batch_size.")
    if not all(np.isfinite(array).all() for array in update.values()):
        return Row(
            "trial", FAILED, "The trained arrays hold values that are not finite.", "Send the run's name to the coordinator."
        )
    said = f"{BATCHES} batches were read and trained in {time.monotonic() - began:.0f} s on {choose_device().type}."
    return Row("trial", OK, f"{said} Nothing was kept, nothing was charged.")


def train_two_batches(site: Site, model: MultiModalViT, config: RunConfig, cache: Path) -> Arrays:
    """The arrays after at most two batches of the run's own training.

    Raises:
        FedMRIError: the patients or the configuration are refused.
    """
    private = config.privacy.enabled
    wanted = math.ceil(len(site.cases) * config.privacy.sample_rate) if private else config.training.batch_size
    few = replace(site, cases=site.cases[: BATCHES * max(wanted, 1)])
    patients = open_site(few, config.data, cache, workers=1)
    short = replace(
        config,
        training=replace(config.training, local_epochs=1, head_rounds=0),  # the whole step, which needs the most memory
        privacy=replace(config.privacy, steps=BATCHES, sample_rate=1 / BATCHES) if private else config.privacy,
    )
    if private:
        update = private_round(model, get_arrays(model), patients, short, round_number=1, site_seed=0, charge=lambda _: None)
    else:
        update = train_round(model, get_arrays(model), patients, short, round_number=1, site_seed=0)
    return update.arrays
