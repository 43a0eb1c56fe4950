"""How calibration, prediction sets and the out-of-distribution flag do on external patients, by how many the hospitals have.

    fedmri-sim phantom DIR --sites 4 --patients 60 --external 600 --seed 7
    python bench/calibration.py bench/calibration.json --data DIR --seeds 0 1 2

The same federation as `fedmri-sim run --set baselines=false`, but in this program: sites train and tell their sums by the very
functions that Flower's clients call, and the server's own combines them. What is done is kept in OUT: an interrupted
measurement goes on.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from kept import identity, run_kept
from options import hospital_options
from summary import show_calibration

from client.round.calibrate import fit_sums, score_sums
from common.cli import config_path
from common.config.run import RunConfig, config_from_json, load_config
from common.config.site import find_sites
from common.data.cache import default_cache
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.data.holdout import split
from common.evaluation.ood import score as ood
from common.messages.round import SiteReply
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from server.run.calibrate import Calibrated, combine, fit
from server.run.external import measure_final
from simulation.baselines import open_patients
from simulation.in_process import federate


@dataclass(frozen=True)
class Job:
    """One federation, in plain values that a new process can take."""

    config: str
    data: Path
    external: tuple[str, ...]
    cache: Path


Parts = dict[str, tuple[SiteData, SiteData]]  # by site: patients that train, patients held back


def run_job(job: Job) -> dict[str, Any]:
    """Train, calibrate and measure."""
    torch.set_num_threads(1)
    config = config_from_json(job.config)
    names = sorted(folder.name for folder in find_sites(job.data))
    sites = {name: _open(job, config, name) for name in names}
    parts = {name: split(sites[name], config.evaluation.holdout) for name in names if name not in job.external}
    model = build_model(config)
    arrays = federate(model, {name: training for name, (training, _) in parts.items()}, config)
    trained = TrainedModel(model, arrays, config)
    outside = SiteData.pool([sites[name] for name in job.external], "+".join(job.external))
    found = measure_final(trained, outside, calibrate(trained, parts))
    return {
        "seed": config.seed,
        "patients": {name: len(patients) for name, patients in sites.items()},
        "external": {"mcc": found.external["mcc"], "auroc": found.external["auroc"]["macro"]},
        "calibration": found.calibration,
        "ood": found.ood_summary,
    }


def calibrate(trained: TrainedModel, parts: Parts) -> Calibrated:
    """Both exchanges of `server.run.calibrate.calibrate`, without the wire."""
    config = trained.config
    status = {name: SiteReply(name, config.federation.rounds, counts_shared=True) for name in parts}
    fitted = {name: (status[name], fit_sums(trained, *both, 1)) for name, both in parts.items()}
    scaling, no_offsets = fit(fitted, config)
    reference = ood.pool(*(sums for _, sums in fitted.values()))
    scored = {name: (status[name], score_sums(trained, *both, 1, scaling, reference)) for name, both in parts.items()}
    return replace(combine(fitted, scored, scaling, config), no_offsets=no_offsets)


def _open(job: Job, config: RunConfig, name: str) -> SiteData:
    site = read_site(job.data / name, config, simulated=True)
    return open_patients(site, config, job.cache)


def measure(arguments: argparse.Namespace) -> None:
    """Run what is not there yet."""
    config = load_config(config_path(arguments.config), (*arguments.set, "modality_subsets=false"))
    cache, external = default_cache() / "slices", tuple(arguments.external.split("+"))
    jobs = {
        f"seed {seed}": Job(replace(config, seed=seed).to_json(), arguments.data, external, cache) for seed in arguments.seeds
    }

    def told(run: dict[str, Any]) -> str:
        return f"external MCC {run['external']['mcc']['value']:.3f}, AUROC {run['external']['auroc']:.3f}"

    runs = run_kept(
        arguments.out, identity(config, data=arguments.data.name, external=list(external)), run_job, jobs, arguments.workers, told
    )
    for name, run in runs.items():
        print(f"{name}: {told(run)}")
    show_calibration(list(runs), list(runs.values()))


def main() -> None:
    """Entry point."""
    parser = hospital_options(__doc__)
    parser.add_argument("--external", default="external", help="external site; several joined by +")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
