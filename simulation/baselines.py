"""What stands beside the federation, at the same budget: pooled training, each hospital alone, a probe on frozen features.

Pooled and local runs are federations of one: the same local round, as often, from the same start. Each runs in a process of its
own with one thread, as the sites do. A finished model is kept and reused only for equal data, configuration and code.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from client.round.train import site_seed
from common.config.run import RunConfig, config_from_json
from common.data.cache import open_site
from common.data.cases import Site, read_site
from common.data.dataset import SiteData
from common.data.holdout import held_back, split
from common.data.lesions import with_lesions
from common.evaluation.calibration.calibration import Scaling, fit_temperature, nll_sums
from common.evaluation.calibration.offsets import fit_scaling, offset_sums, why_no_offsets
from common.evaluation.comparison import measure_beside
from common.evaluation.stages.candidates import AVERAGE, LAST, candidates
from common.evaluation.stages.choice import held_back_sums, why_no_choice
from common.messages.code_version import code_hash
from common.models.arrays import Arrays, get_arrays, load_arrays, save_arrays
from common.models.build import build_model
from common.models.covariates import CovariateLogits
from common.models.trained_model import TrainedModel
from common.training.local import train_round
from common.training.predict import frozen_features, predict
from server.run.stage import judge
from simulation.probe import linear_probe
from simulation.processes import Workers, side_by_side

PROBE = "linear_probe"
POOLED = "pooled"

Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """One baseline, in plain values that a new process can take.

    Attributes:
        name: `pooled`, `linear_probe`, or a site's name.
        sites: folders of the patients to train on.
        external: folders of the patients to predict.
        config: as JSON.
        cache: of slices.
        models: where trained baselines are kept.
    """

    name: str
    sites: tuple[Path, ...]
    external: tuple[Path, ...]
    config: str
    cache: Path
    models: Path


def plan_baselines(
    data: Path, sites: Sequence[str], external: Sequence[str], config: RunConfig, cache: Path, models: Path
) -> list[Job]:
    """The jobs of one federation, the longest first; a hospital that trains without labels has no model of its own.

    None where no hospital has labels.
    """
    folders = tuple(data / name for name in sites)
    held_out = tuple(data / name for name in external)
    labelled = [folder for folder in folders if _learns(folder, config)]
    if not labelled:
        return []
    text = config.to_json()
    jobs = [Job(POOLED, folders, held_out, text, cache, models)]
    jobs += [Job(folder.name, (folder,), held_out, text, cache, models) for folder in labelled]
    if config.task.exclusive or config.task.decoder:  # the probe fits one class a patient; MONAI's U-Net has its place
        jobs.append(Job(PROBE, folders, held_out, text, cache, models))
    return jobs


def _learns(folder: Path, config: RunConfig) -> bool:
    """Whether any of the patients of a site who train is labelled."""
    cases = read_site(folder, config, simulated=True).usable().cases
    held = held_back([case.id for case in cases], config.evaluation.holdout)
    return any(case.label >= 0 for case, back in zip(cases, held, strict=True) if not back)


def run_baselines(
    jobs: Sequence[Job], workers: Workers, on_done: Callable[[str], None] | None = None
) -> dict[str, Probabilities]:
    """Run the jobs side by side.

    Returns:
        Probabilities [N, C] of the external patients by each baseline's name.
    """
    return side_by_side(run_job, jobs, workers, on_done)


def run_job(job: Job) -> Probabilities:
    """One baseline, here and now."""
    torch.set_num_threads(1)
    config = config_from_json(job.config)
    external = open_folders(job.external, config, job.cache)
    training, held = split_folders(job.sites, config, job.cache)
    known = held.select(held.labelled)
    if job.name == PROBE:
        probabilities, own = _probe(training, (external, known), config)
        return _calibrated(probabilities, own, known, config)
    trained = TrainedModel(build_model(config), trained_arrays(job, training, known, config), config)
    if not config.task.exclusive:
        return predict(trained, external)
    own = predict(trained, known) if len(known) else np.empty((0, len(config.task.classes)))
    return _calibrated(predict(trained, external), own, known, config)


def _calibrated(probabilities: Probabilities, own: Probabilities, known: SiteData, config: RunConfig) -> Probabilities:
    """Calibrated as the federated model is, offsets included, on the labelled patients that its own sites held back.

    Args:
        probabilities: of the external patients [N, C].
        own: of the held-back ones [K, C].
        known: the held-back ones.
        config: says whether class offsets are fitted.
    """
    return fitted_scaling(known.labels, own, config).apply(probabilities)


def fitted_scaling(labels: NDArray[np.int64], own: Probabilities, config: RunConfig) -> Scaling:
    """Temperature and, where the configuration has them and they can be fitted, class offsets, of held-back patients.

    Args:
        labels: theirs [K], each a class.
        own: what the model says of them [K, C].
        config: says whether class offsets are fitted.
    """
    scaling = None
    if not why_no_offsets(config):
        scaling = fit_scaling(offset_sums(labels, own), np.bincount(labels, minlength=own.shape[1]))
    return scaling or Scaling(fit_temperature(nll_sums(labels, own)))


def measure(
    probabilities: Mapping[str, Probabilities], labels: Sequence[int], federated: Probabilities, config: RunConfig
) -> dict[str, Any]:
    """`baselines` of report.json: every baseline on the same resamples as the federated model, and the paired difference to it.

    Args:
        probabilities: [N, C] by baseline; NaN for a patient that it was not asked about.
        labels: [N], below 0: left out.
        federated: [N, C], the federated model's.
        config: the task, the bootstrap and the seed are read.
    """
    found = {}
    for name, said in probabilities.items():
        asked = np.isfinite(said).all(1)
        found[name] = measure_beside(np.asarray(labels)[asked], federated[asked], said[asked], config)
    local = {name: result for name, result in found.items() if name not in (POOLED, PROBE)}
    return {name: found[name] for name in (POOLED, PROBE) if name in found} | {"local": local}


def open_folders(folders: Sequence[Path], config: RunConfig, cache: Path) -> SiteData:
    """The patients of several site folders as one."""
    return _pooled(_open(folders, config, cache), folders)


def split_folders(folders: Sequence[Path], config: RunConfig, cache: Path) -> tuple[SiteData, SiteData]:
    """Those who train and those who are held back, of several site folders: in each site the same ones as in the federation."""
    sites = [split(site, config.evaluation.holdout) for site in _open(folders, config, cache)]
    return _pooled([training for training, _ in sites], folders), _pooled([held for _, held in sites], folders)


def _open(folders: Sequence[Path], config: RunConfig, cache: Path) -> list[SiteData]:
    return [open_patients(read_site(folder, config, simulated=True), config, cache) for folder in folders]


def open_patients(site: Site, config: RunConfig, cache: Path) -> SiteData:
    """A site's patients, with their tumours where the run reads masks."""
    patients = open_site(site, config.data, cache, workers=1)
    return with_lesions(patients, site, config.data, cache) if config.reads_masks else patients


def _pooled(sites: Sequence[SiteData], folders: Sequence[Path]) -> SiteData:
    return sites[0] if len(sites) == 1 else SiteData.pool(sites, "+".join(f.name for f in folders))


def trained_arrays(job: Job, training: SiteData, known: SiteData, config: RunConfig) -> Arrays:
    """The baseline's arrays: kept ones where everything is equal, else trained now."""
    path = job.models / f"{re.sub(r'[^A-Za-z0-9._-]', '_', job.name)}.safetensors"
    identity = {"config": job.config, "data": training.key, "labels": _digits(training), "code": code_hash()}
    if config.evaluation.stage != LAST:  # they have a part in what is kept
        identity |= {"held": f"{known.key} {_digits(known)}"}
    if path.is_file():
        arrays, metadata = load_arrays(path)
        if metadata == identity:
            return arrays
    arrays = chosen(train_alone(training, config, job.name), known, config)
    save_arrays(path, arrays, identity)
    return arrays


def chosen(rounds: Sequence[Arrays], known: SiteData, config: RunConfig) -> Arrays:
    """The arrays to keep, by the same rule as the federation's (`server.run.stage`), on its own held-back patients.

    Args:
        rounds: the arrays after each round.
        known: labelled patients that were held back.
        config: of the run.
    """
    stage, last = config.evaluation.stage, len(rounds)
    if why_no_choice(config) or (stage != AVERAGE and not len(known)):
        return rounds[-1]
    found = candidates(stage, lambda number: rounds[number - 1], last, config.training.head_rounds, config.training.ssl_rounds)
    if len(found) == 1:
        return found[0].arrays
    model = build_model(config)
    answers = (predict(TrainedModel(model, one.arrays, config), known) for one in found)
    return judge(found, [held_back_sums(known.labels, said, config) for said in answers])[0].arrays


def train_alone(training: SiteData, config: RunConfig, name: str) -> list[Arrays]:
    """A federation of one: as many rounds, of the same local round; of a private run without the term that stands in for DINO.

    Returns:
        The arrays after each round; after the last alone, where no other can be kept.
    """
    if config.privacy.enabled:
        config = replace(config, objective=config.objective.without("consistency"))
    model = build_model(config)
    arrays, kept = get_arrays(model), list[Arrays]()
    for number in range(1, config.federation.rounds + 1):
        seed = site_seed(config.seed, name, number)
        arrays = train_round(model, arrays, training, config, round_number=number, site_seed=seed).arrays
        kept = [*kept, arrays] if config.evaluation.stage != LAST else [arrays]
    return kept


def _probe(training: SiteData, others: Sequence[SiteData], config: RunConfig) -> list[Probabilities]:
    """Logistic regression on the frozen features of the labelled patients of all sites: what it says of each of the others."""
    model = build_model(config)
    labelled = training.select(training.labelled)
    train, classes = frozen_features(model, labelled, config, pooled=True), len(config.task.classes)
    asked = np.concatenate([frozen_features(model, patients, config, pooled=True) for patients in others])
    known = (_covariates([labelled], config), _covariates(others, config)) if config.data.covariates else None
    said = linear_probe(train, labelled.labels, asked, classes=classes, covariates=known)
    return np.split(said, np.cumsum([len(patients) for patients in others])[:-1])


def _covariates(sites: Sequence[SiteData], config: RunConfig) -> NDArray[np.float32]:
    """What is known of the patients, as the model sees it."""
    part = CovariateLogits(config.data.covariates, len(config.task.classes))
    return np.asarray(part.features(torch.cat([torch.from_numpy(site.covariates) for site in sites])))


def _digits(training: SiteData) -> str:
    """The labels, and the hash of the covariates where there are any, as text: they are not in the data's key."""
    known = f" {hashlib.sha256(training.covariates.tobytes()).hexdigest()}" if training.covariates.size else ""
    return " ".join(str(label) for label in training.labels) + known


def probabilities_json(ids: Sequence[str], probabilities: Mapping[str, Probabilities]) -> bytes:
    """Every baseline's answer for every external patient, for comparisons paired by patient."""
    table = {name: dict(zip(ids, values.tolist(), strict=True)) for name, values in probabilities.items()}
    return json.dumps(table, indent=1).encode()
