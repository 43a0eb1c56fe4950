"""What unlabelled patients are worth: external MCC against the share of labels, with them and without.

    fedmri-sim phantom DIR --sites 4 --patients 24 --external 300 --seed SEED
    python bench/labels.py OUT.json --data DIR --shares 0.1 1.0 --seeds 0 1 2

At each site all but a share of the labelled patients who train lose their label, drawn from a generator of its own: of two shares
the smaller one's patients are among the larger one's. Sites train in this program (`bench/utility.py`); answers are the model's,
without class offsets. Gains over `without`, in which nobody unlabelled trains, are paired: both arms on the same resamples of
external patients, the mean over seeds. What is done is kept in OUT.json: an interrupted measurement goes on.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import Result, identity, run_kept
from numpy.typing import NDArray
from options import hospital_options
from rich.console import Console
from rich.table import Table

from common.cli import config_path
from common.config.run import config_from_json, load_config
from common.config.site import find_sites
from common.data.cache import default_cache
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.data.holdout import split
from common.metrics.bootstrap import auroc, confusion, draw_counts, mcc, t_interval
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from simulation.baselines import open_patients
from simulation.in_process import federate

EXTERNAL, WITHOUT = "external", "without"
SSL_ROUNDS = 6  # beside the configuration's own rounds
ARMS: dict[str, tuple[str, ...]] = {  # settings beside the configuration's
    WITHOUT: (),
    "as configured": (),
    "fixmatch": ("objective.terms.fixmatch.weight=1",),
    "fixmatch, site's shares": ("objective.terms.fixmatch.weight=1", "objective.terms.fixmatch.prior=labels"),
    "mean teacher": ("objective.terms.mean_teacher.weight=10",),
    "ssl rounds": (f"training.ssl_rounds={SSL_ROUNDS}", "objective.terms.dino.weight=1", "objective.terms.ibot.weight=1"),
}


@dataclass(frozen=True)
class Job:
    """One federation, in plain values that a new process can take."""

    config: str
    share: float
    unlabelled: bool  # whether those without a label train
    data: Path
    cache: Path


def hide_labels(patients: SiteData, share: float, seed: int) -> SiteData:
    """The site with the labels of a share of its labelled patients, one at least where it has any; nobody leaves.

    Args:
        patients: of one site; its name and `seed` make the generator.
        share: of labels that stay, 0 to 1.
        seed: equal seeds hide the same labels.
    """
    rows = np.random.default_rng([seed, *patients.name.encode()]).permutation(patients.labelled)
    labels = np.full_like(patients.labels, -1)
    kept = rows[: max(1, round(share * len(rows)))]
    labels[kept] = patients.labels[kept]
    return replace(patients, labels=labels)


def run_job(job: Job) -> Result:
    """Train, and answer for the external patients."""
    torch.set_num_threads(1)
    config = config_from_json(job.config)
    sites = {
        folder.name: open_patients(read_site(folder, config, simulated=True), config, job.cache)
        for folder in find_sites(job.data)
    }
    external = sites.pop(EXTERNAL)
    trained = {}
    for name, patients in sorted(sites.items()):
        known = hide_labels(split(patients, config.evaluation.holdout)[0], job.share, config.seed)
        trained[name] = known if job.unlabelled else known.select(known.labelled)
    trained = {name: patients for name, patients in trained.items() if len(patients)}
    model = build_model(config)
    said = predict(TrainedModel(model, federate(model, trained, config), config), external)
    once = np.ones((1, len(external)))
    return {
        "labels": sum(len(patients.labelled) for patients in trained.values()),
        "patients": sum(len(patients) for patients in trained.values()),
        "auroc": float(auroc(external.labels, said, once)[0]),
        "truth": external.labels.tolist(),
        "said": said.argmax(1).tolist(),
    }


def mcc_of(results: Sequence[Result], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """[B]: the mean over results of the MCC on each resample [B, N] of the external patients."""
    each = []
    for result in results:
        truth, said = np.array(result["truth"]), np.array(result["said"])
        each.append(mcc(confusion(truth, said, int(truth.max()) + 1, counts)))
    return np.asarray(np.mean(each, axis=0))


def show(runs: Mapping[str, Result], shares: Sequence[float], arms: Sequence[str], seeds: Sequence[int]) -> None:
    """A row for each share and arm."""
    table = Table("labels", "arm", "MCC of each seed", "MCC", "AUROC", f"MCC minus {WITHOUT!r} (95%)")
    for share, arm in itertools.product(shares, arms):
        own, other = ([runs[name_of(share, one, seed)] for seed in seeds] for one in (arm, WITHOUT))
        n = len(own[0]["truth"])
        once, counts = np.ones((1, n)), draw_counts(n, 2000, np.random.default_rng(0))
        assert counts is not None
        gain = float(mcc_of(own, once)[0] - mcc_of(other, once)[0])
        span = t_interval(gain, mcc_of(own, counts) - mcc_of(other, counts), n)
        table.add_row(
            f"{share:.0%}: {own[0]['labels']} of {own[0]['patients']}",
            arm,
            " ".join(f"{mcc_of([one], once)[0]:.3f}" for one in own),
            f"{mcc_of(own, once)[0]:.3f}",
            f"{np.mean([one['auroc'] for one in own]):.3f}",
            f"{gain:+.3f} ({span['low']:+.3f} to {span['high']:+.3f})",
        )
    Console(width=140).print(table)


def name_of(share: float, arm: str, seed: int) -> str:
    """Under which a result is kept."""
    return f"{arm}, {share:g} of the labels, seed {seed}"


def settings_of(arm: str, rounds: int, seed: int) -> tuple[str, ...]:
    """What `--set` would say: rounds of a stage of its own come on top."""
    more = (f"rounds={rounds + SSL_ROUNDS}",) if arm == "ssl rounds" else ()
    return (*ARMS[arm], *more, f"seed={seed}")


def main() -> None:
    """Entry point."""
    parser = hospital_options(__doc__)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.25, 0.5, 1.0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    path, arms = config_path(arguments.config), list(dict.fromkeys([WITHOUT, *arguments.arms]))
    plain = load_config(path, tuple(arguments.set))
    jobs = {}
    for share, arm, seed in itertools.product(arguments.shares, arms, arguments.seeds):
        config = load_config(path, (*arguments.set, *settings_of(arm, plain.federation.rounds, seed)))
        jobs[name_of(share, arm, seed)] = Job(config.to_json(), share, arm != WITHOUT, arguments.data, default_cache() / "slices")
    known: dict[str, Any] = identity(plain, data=arguments.data.name)
    runs = run_kept(arguments.out, known, run_job, jobs, arguments.workers, lambda found: f"AUROC {found['auroc']:.3f}")
    show(runs, arguments.shares, arms, arguments.seeds)


if __name__ == "__main__":
    main()
