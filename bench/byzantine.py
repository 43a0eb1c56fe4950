"""What a lying hospital costs, by aggregator: a federation with one liar beside the same federation without.

    fedmri-sim phantom DIR --sites 9 --patients 16 --external 150 --seed 1408
    python bench/byzantine.py OUT.json --data DIR --seeds 0 1
    python bench/byzantine.py OUT.json --data DIR --table

The liar trains as the others do, and sends something else. It claims no more patients than it has. Sites train in this program
(`simulation.in_process`); the norm check of `federation.max_update_ratio` comes before the aggregator, as in a run. What is done
is kept in OUT.json: an interrupted measurement goes on.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import utility
from kept import Result, identity, run_kept
from options import hospital_options

from common.cli import config_path, while_read
from common.config.run import RunConfig, config_from_json, config_from_table, load_config
from common.config.site import find_sites
from common.data.cache import default_cache
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.data.holdout import split
from common.errors import FederationError
from common.messages.round import SiteReply
from common.messages.update import Update
from common.metrics.classification import evaluate
from common.models.arrays import Arrays, arrays_sha256, norm
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training import probing
from common.training.private_probing import embed_patients
from server.strategy.aggregation import norm_outliers
from simulation.baselines import open_patients
from simulation.in_process import federate

EXTERNAL = "external"
STRATEGIES = {
    8: ("fedavg", "fedavgm", "fedadam", "fedyogi", "trimmed-mean", "median", "krum", "multikrum", "bulyan"),
    4: ("fedavg", "trimmed-mean", "median"),  # krum needs five sites, bulyan seven
}


@dataclass(frozen=True)
class Attack:
    """What the liar sends in the place of its change, and whether the norm check is on.

    Attributes:
        factor: of its change; of random values of the norm of its change where `random`.
    """

    factor: float
    random: bool = False
    norm_check: bool = True

    def lie(self, change: Arrays, generator: np.random.Generator) -> Arrays:
        """The change that is sent; arrays that the round has not trained stay untouched."""
        if self.random:
            drawn = {name: generator.normal(size=array.shape) * array.any() for name, array in sorted(change.items())}
            scale = norm(change) / max(float(np.sqrt(sum(np.square(array).sum() for array in drawn.values()))), 1e-12)
            change = {name: np.asarray(scale * array, np.float32) for name, array in drawn.items()}
        return {name: np.asarray(self.factor * array, np.float32) for name, array in change.items()}


ATTACKS = {
    "honest": Attack(1.0),
    "flipped": Attack(-1.0),
    "flipped x20": Attack(-20.0),
    "random x20": Attack(20.0, random=True),
    "flipped x100": Attack(-100.0),
    "flipped x100, no norm check": Attack(-100.0, norm_check=False),
}


@dataclass(frozen=True)
class Job:
    """One federation, in plain values that a new process can take."""

    strategy: str
    attack: str
    sites: int
    config: str
    data: Path
    liar: str

    @property
    def name(self) -> str:
        """Under which its result is kept."""
        return f"{self.strategy}, {self.sites} sites, {self.attack}, seed {config_from_json(self.config).seed}"


def received(attack: Attack, liar: str, config: RunConfig) -> Callable[[dict[str, SiteReply]], dict[str, SiteReply]]:
    """What reaches the aggregator of a round's honest replies."""
    generator = np.random.default_rng(config.seed)

    def replies_of(honest: dict[str, SiteReply]) -> dict[str, SiteReply]:
        lie = Update(attack.lie(honest[liar].update.change, generator))
        sent = honest | {liar: replace(honest[liar], update=lie)}
        outliers = norm_outliers(sent, config.federation.max_update_ratio)
        return {name: reply for name, reply in sent.items() if name not in outliers}

    return replies_of


@cache
def share_features() -> Callable[..., Any]:
    """Let all jobs of this process have the frozen backbone's features from one pass over the patients.

    Returns:
        `embed_patients`, of the external ones.
    """
    probing._embed = _remembered(probing._embed)
    return _remembered(embed_patients)


def _remembered(embed: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, that works equal features out once; where modalities are dropped at random no two are equal."""
    known: dict[tuple[str, int, str], Any] = {}

    def once(trained: TrainedModel, patients: SiteData, *more: Any) -> Any:
        if trained.config.objective.modality_dropout:
            return embed(trained, patients, *more)
        frozen = {name: array for name, array in trained.arrays.items() if not name.startswith("head.")}
        key = patients.key, len(patients), arrays_sha256(frozen)
        if key not in known:
            known[key] = embed(trained, patients, *more)
        return known[key]

    return once


def run_job(job: Job) -> Result:
    """Train with the liar, and measure the last round's model on the external patients."""
    torch.set_num_threads(1)
    config, attack, embed = config_from_json(job.config), ATTACKS[job.attack], share_features()
    sites = {name: split(_open(job.data, config, name), config.evaluation.holdout)[0] for name in labelled(job.data, config)}
    sites = dict(list(sites.items())[: job.sites])
    model, patients = build_model(config), _open(job.data, config, EXTERNAL)
    told = {"strategy": job.strategy, "sites": job.sites, "attack": job.attack, "seed": config.seed}
    try:
        arrays = federate(model, sites, config, received(attack, job.liar, config))
    except FederationError as error:
        return told | {"error": str(error), "mcc": 0.0, "auroc": 0.5}
    answers = utility.answer(model, arrays, patients, config, embed)
    found = evaluate(patients.labels, answers, config.task.classes, bootstrap=0, generator=np.random.default_rng(config.seed))
    return told | {"n": found["n"], "mcc": found["mcc"]["value"], "auroc": found["auroc"]["macro"]}


def labelled(data: Path, config: RunConfig) -> list[str]:
    """Names of the training sites with labels, sorted: a liar must have something to lie about in every round."""
    sites = {folder.name: read_site(folder, config, simulated=True) for folder in find_sites(data)}
    return sorted(name for name, site in sites.items() if name != EXTERNAL and any(case.label >= 0 for case in site.cases))


def _open(data: Path, config: RunConfig, name: str) -> SiteData:
    return open_patients(read_site(data / name, config, simulated=True), config, default_cache() / "slices")


def with_strategy(config: RunConfig, strategy: str, seed: int, *, norm_check: bool) -> RunConfig:
    """The run with this aggregator."""
    kind = config_from_table({"federation": {"strategy": strategy, "min_sites": 10_000}}).federation.strategy
    ratio = config.federation.max_update_ratio if norm_check else 0.0
    plan = replace(config.federation, strategy=kind, min_sites=kind.least_sites, max_update_ratio=ratio)
    return replace(config, federation=plan, seed=seed)


def plan(config: RunConfig, arguments: argparse.Namespace) -> Iterator[Job]:
    """All federations, a whole seed before the next."""
    for seed in arguments.seeds:
        for sites, strategies in STRATEGIES.items():
            for strategy, (name, attack) in product(strategies, ATTACKS.items()):
                if strategy not in (arguments.strategies or strategies) or name not in (arguments.attacks or ATTACKS):
                    continue
                one = with_strategy(config, strategy, seed, norm_check=attack.norm_check)
                yield Job(strategy, name, sites, one.to_json(), arguments.data, arguments.liar)


def measure(arguments: argparse.Namespace) -> None:
    """Run what is not there yet."""
    config = load_config(config_path(arguments.config), tuple(arguments.set))
    jobs = {job.name: job for job in plan(config, arguments)}
    known = identity(config, data=arguments.data.name, liar=arguments.liar)
    run_kept(
        arguments.out, known, run_job, jobs, arguments.workers, lambda run: f"MCC {run['mcc']:.3f}, AUROC {run['auroc']:.3f}"
    )


def table(results: dict[str, Any]) -> None:
    """Print Markdown: means over seeds; of each MCC, AUROC, and the share of the same rule's honest MCC that is kept."""
    runs = list(results["runs"].values())
    known = {(run["sites"], run["strategy"]) for run in runs}
    print("| sites | aggregator | " + " | ".join(ATTACKS) + " | costs where all are honest |")
    print("|---" * (len(ATTACKS) + 3) + "|")
    for sites, strategies in STRATEGIES.items():
        for strategy in (name for name in strategies if (sites, name) in known):
            honest, best = (_mean(_of(runs, sites, name, "honest"), "mcc") for name in (strategy, "fedavg"))
            cells = [_cell(_of(runs, sites, strategy, attack), honest) for attack in ATTACKS]
            print(f"| {sites} | {strategy} | {' | '.join(cells)} | {best - honest:+.2f} |")


def _of(runs: list[Result], sites: int, strategy: str, attack: str) -> list[Result]:
    return [run for run in runs if (run["sites"], run["strategy"], run["attack"]) == (sites, strategy, attack)]


def _mean(runs: list[Result], name: str) -> float:
    return statistics.mean(run[name] for run in runs) if runs else float("nan")


def _cell(runs: list[Result], honest: float) -> str:
    return f"{_mean(runs, 'mcc'):.2f} / {_mean(runs, 'auroc'):.2f} ({_mean(runs, 'mcc') / honest:.0%})" if runs else "not run"


def main() -> int:
    """Entry point."""
    parser = hospital_options(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--liar", default="hospital-b")
    parser.add_argument("--strategies", nargs="+", default=[], help="only these")
    parser.add_argument("--attacks", nargs="+", default=[], choices=ATTACKS, help="only these")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="only print what OUT holds")
    arguments = parser.parse_args()
    if arguments.table:
        table(json.loads(arguments.out.read_text(encoding="utf-8")))
    else:
        measure(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(while_read(main))
