"""Checks of what trains: GPU, weights, patients, and one trial step. Nothing is charged to the ledger, nothing leaves."""

import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from client.deployment.home import SiteHome
from client.doctor.check_result import FAILED, NOTE, OK, WARNING, Finding
from client.round.site_context import SiteContext
from client.round.train import own_weights, prepared_model
from common.config.run import RunConfig
from common.data.cache import default_cache, open_site
from common.data.cases import Case, read_site
from common.data.check import check_site
from common.data.gate.finding import Level
from common.errors import DataError, FedMRIError
from common.models.arrays import get_arrays
from common.models.backbones.kept_weights import keep_shipped, kept_weights
from common.models.backbones.weights import SHIPPED_FILES, WITHOUT_FILE, file_sha256, find_weights
from common.training.device import and_its_like, choose_device
from common.training.local import train_round
from common.training.private import private_round
from common.training.trainable import rounds_before_tuning

FEW = 4  # patients of the trial
FETCH = "Get the file that the coordinator names, then: fedmri-site weights add {} FILE"


def check_device() -> Iterator[Finding]:
    """A GPU, or none."""
    if not torch.cuda.is_available():
        yield Finding("GPU", WARNING, "None that PyTorch can use: training runs on the CPU.", "A small backbone is fine with it.")
        return
    free, total = torch.cuda.mem_get_info()
    name, used = torch.cuda.get_device_name(), len(and_its_like(choose_device()))
    several = "" if used == 1 else f" {used} of this model share the work."
    yield Finding("GPU", OK, f"{name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free.{several}")


def check_weights(home: SiteHome, config: RunConfig | None) -> Generator[Finding, None, bool]:
    """The backbone can be built from local weights and is the pinned one; returns whether it is."""
    pinned, fetch = home.config.policy.backbone_sha256, FETCH.format(home.folder)
    keep_shipped(home.weights)  # as the gate does before a request
    broken = [one.path for one in kept_weights(home.weights) if not one.sound]
    if broken:
        yield Finding(
            "weights", FAILED, f"{broken[0]} is damaged, or is not named by its SHA-256.", "Remove it, and add it anew."
        )
        return False
    if config is None:
        file = _own_file(home)
        yield file
        return file.level != FAILED
    try:
        own = own_weights(_place(home), config, planned_sha256(config, pinned))
        if config.model.weights == "hub" and not own:
            text = "The run takes its weights from the hub at the first round, over the Internet; nothing was fetched now."
            yield Finding("weights", WARNING, text, fetch)
            return False
        model, _ = prepared_model(config.to_json(), own)
    except FedMRIError as error:
        yield Finding("weights", FAILED, str(error), fetch)
        return False
    found = f"{model.backbone_name}, SHA-256 {model.backbone_sha256}"
    if pinned and pinned != model.backbone_sha256:
        text = f"{found}; but policy.backbone_sha256 pins {pinned[:12]}."
        yield Finding("weights", FAILED, text, "Fetch the agreed file, or correct the pin (`fedmri-site pins`).")
        return False
    advice = "" if pinned else "Compare the hash with the coordinator's, and pin it: `fedmri-site pins`."
    yield Finding("weights", OK, f"{found}{', as pinned' if pinned else '; not pinned'}.", advice)
    return True


def check_data(home: SiteHome, config: RunConfig | None) -> Generator[Finding, None, bool]:
    """All volumes open and fit; returns whether they do."""
    run = config or RunConfig()
    see = f"fedmri-site check {home.folder} names each patient and file."
    try:
        found = check_site(read_site(home.toml, run), run)
    except FedMRIError as error:
        yield Finding("data", FAILED, str(error), see)
        return False
    labelled = found.patients - found.classes["unlabelled"]
    known = "".join(f", {count} with {name}" for name, count in found.covariates.items())
    text = f"{found.patients} patients, {labelled} with a label{known}"
    errors, warnings, out = len(found.of(Level.ERROR)), len(found.of(Level.WARNING)), found.patients - found.used
    said = f"{text}; stay out: {out}, errors: {errors}, warnings: {warnings}."
    if not found.usable:
        yield Finding("data", FAILED, said, see)
    elif errors or warnings:
        yield Finding("data", WARNING, said, see)
    else:
        yield Finding("data", OK, f"{text}.")
    return found.usable


def check_training(home: SiteHome, config: RunConfig) -> Iterator[Finding]:
    """One real step on a few patients, whose slices are made in a folder that is deleted."""
    began = time.monotonic()
    sha256 = planned_sha256(config, home.config.policy.backbone_sha256)
    model, _ = prepared_model(config.to_json(), own_weights(_place(home), config, sha256))
    site = read_site(home.toml, config)
    few = replace(site, cases=_few(site.cases))
    trial = _one_step(config)
    number = min(rounds_before_tuning(config) + 1, config.federation.rounds)  # it trains the adapters, where any does
    arrays = get_arrays(model)
    with tempfile.TemporaryDirectory(prefix="fedmri-doctor-") as folder:
        patients = open_site(few, config.data.unharmonised, Path(folder), workers=1)
        if config.privacy.enabled:
            update = private_round(model, arrays, patients, trial, round_number=number, site_seed=0, charge=lambda cost: None)
        else:
            update = train_round(model, arrays, patients, trial, round_number=number, site_seed=0)
    wrong = [name for name, array in update.arrays.items() if not np.isfinite(array).all()]
    if wrong:
        raise DataError(f"The trial step gave values that are not finite, in {len(wrong)} arrays. Look at `fedmri-site check`.")
    took, device = time.monotonic() - began, choose_device().type
    kind = "private step" if config.privacy.enabled else "step"
    yield Finding("dry run", OK, f"One {kind} on {len(patients)} patients ({device}): {took:.1f} s. Nothing was charged or sent.")


def _one_step(config: RunConfig) -> RunConfig:
    """The run, with one step in each round."""
    return replace(
        config,
        training=replace(config.training, head_steps=1, local_epochs=1, batch_size=max(FEW, config.training.batch_size)),
        privacy=replace(config.privacy, steps=1, sample_rate=1.0),
    )


def _few(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """The first few patients: one without a label where there is any, the others with."""
    labelled, others = [c for c in cases if c.label >= 0], [c for c in cases if c.label < 0]
    chosen = (labelled[: FEW - bool(others)] + others)[:FEW]
    return tuple(sorted(chosen, key=lambda case: case.id))


def planned_sha256(config: RunConfig, pinned: str) -> str:
    """SHA-256 of the planned run's weights, as far as this machine knows: by name, by file, or by the hospital's own pin."""
    named = config.model.weights
    if named in WITHOUT_FILE:
        return ""
    file = SHIPPED_FILES.get(named, Path(named).expanduser())
    return file_sha256(file) if file.is_file() else pinned


def _own_file(home: SiteHome) -> Finding:
    """connection.weights is there, where it names one; whether it is the right file, the run's architecture would say."""
    own = home.config.connection.weights
    if not own:
        text = f"{len(kept_weights(home.weights))} kept in {home.weights}; which are needed depends on the planned run."
        return Finding("weights", NOTE, text, "Name it with --config.")
    try:
        path = find_weights(str(home.folder / Path(own).expanduser()))
    except FedMRIError as error:
        return Finding("weights", FAILED, str(error), "Correct weights under [connection] in site.toml.")
    size = path.stat().st_size / 1e6
    return Finding("weights", OK, f"{path} is there ({size:.0f} MB); --config would say whether it fits the planned run.")


def _place(home: SiteHome) -> SiteContext:
    return SiteContext(home.name, home.toml, default_cache(), simulated=False)
