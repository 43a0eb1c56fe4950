"""A run that segments: its baselines on the same patients, and the folds of a cross-site run as one report."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from common.config.run import RunConfig, config_from_json
from common.errors import DataError
from common.evaluation.segmentation import Measured, beside, external_entry, measure_patients
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.segment import Network, as_network
from server.run.segmentation import external_cases
from simulation.baselines import POOLED, PROBE, Job, open_folders, split_folders, trained_arrays
from simulation.folds import Runs, read_folds
from simulation.peers.registry import UNET
from simulation.peers.train import as_network as peer_network
from simulation.peers.train import train_peer
from simulation.processes import Workers, side_by_side

Found = dict[str, dict[str, Any]]  # agreement by patient


def run_baselines(jobs: Sequence[Job], workers: Workers, on_done: Callable[[str], None] | None = None) -> dict[str, Found]:
    """Run the jobs side by side.

    Args:
        jobs: of `simulation.baselines.plan_baselines`; MONAI's U-Net stands in the linear probe's place, which knows classes.
        workers: processes, or the cluster that has them.
        on_done: called with each job's name.

    Returns:
        By the baseline's name, each external patient's agreement.
    """
    found = side_by_side(run_job, jobs, workers, on_done)
    return {UNET.name if name == PROBE else name: one for name, one in found.items()}


def run_job(job: Job) -> Found:
    """One baseline, here and now."""
    torch.set_num_threads(1)
    config = config_from_json(job.config)
    patients = open_folders(job.external, config, job.cache)
    names = [folder.name for folder in job.external]
    cases = external_cases(job.external[0].parent, names, config, patients)
    return measure_patients(_network(job, config), cases, config).known


def _network(job: Job, config: RunConfig) -> Network:
    training, held = split_folders(job.sites, config, job.cache)
    if job.name == PROBE:
        return peer_network(train_peer(UNET, training, config), config)
    return as_network(TrainedModel(build_model(config), trained_arrays(job, training, held, config), config))


def measured_of(patients: Sequence[Mapping[str, Any]]) -> Measured:
    """`patients` of report.json, back."""
    kept = ("id", "modalities", "segmentation")
    return Measured([{name: one[name] for name in kept} for one in patients])


def baseline_entries(federated: Measured, baselines: Mapping[str, Found], config: RunConfig) -> dict[str, Any]:
    """`baselines` of report.json: each with the paired difference in mean Dice on the patients that both were measured on."""
    told = {name: beside(federated.known, found, config, "difference") for name, found in baselines.items()}
    first = (POOLED, UNET.name)
    local = {name: one for name, one in told.items() if name not in first}
    return {name: told[name] for name in first if name in told} | {"local": local}


def baselines_json(baselines: Mapping[str, Found]) -> bytes:
    """Every baseline's agreement for every external patient, for comparisons paired by patient."""
    return json.dumps(baselines, indent=1).encode()


def pooled_folds(runs: Runs, config: RunConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All folds' patients, and what of a report is measured on them.

    Args:
        runs: of a cross-site run.
        config: of the runs.

    Raises:
        DataError: no external patient of any fold has a drawn mask.
    """
    patients, baselines = read_folds(runs)
    measured = measured_of(patients)
    if not measured.known:
        raise DataError("No patient of any site has a drawn mask: nothing can be measured.")
    entry = {"segmentation": external_entry(measured, config)}
    return patients, {"external": entry, "baselines": baseline_entries(measured, baselines, config)}
