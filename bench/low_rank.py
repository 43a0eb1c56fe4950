"""What becomes of LoRA's pairs: every rule of `federation.low_rank`, and every `factor`, from the same head rounds.

    fedmri-sim phantom phantoms-21 --sites 4 --patients 24 --external 100 --seed 21
    python bench/low_rank.py OUT.json --data phantoms-21 phantoms-22

Sites train in this program, as in `bench/utility.py`. The head rounds of the configuration are played once, then the tuning
rounds by each kind; with `--still`, the head stays as the head rounds left it, so that the adapters alone are seen. What is
done is kept in OUT: an interrupted measurement goes on.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import identity, run_kept
from rich.console import Console
from rich.table import Table

from client.round.train import site_seed
from common.cli import config_path
from common.config.run import RunConfig, config_from_json, load_config
from common.config.site import find_sites
from common.data.cache import default_cache
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.data.holdout import split
from common.messages.round import SiteReply, pack_arrays, record_bytes
from common.messages.update import Update
from common.metrics.classification import evaluate
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.local import train_round
from common.training.predict import predict
from server.strategy.aggregation import aggregate, low_rank_figures
from simulation.baselines import open_patients

SETTINGS = ("learning_rate=3e-3", "local_epochs=2", "rounds=8", "local_crops=0")  # adapters move, four rounds after the head's
KINDS: dict[str, tuple[str, ...]] = {
    "apart": (),
    "b": ("factor=b",),
    "alternate": ("factor=alternate",),
    "step": ("factor=step",),
    "fair": ("low_rank=fair",),
    "residual": ("low_rank=residual",),
    "svd": ("low_rank=svd",),
    "svd, ranks 8 4 2 1": ("low_rank=svd",),
}
RANKS = {"svd, ranks 8 4 2 1": (0, 4, 2, 1)}  # of the sites in the order of their names; 0: the run's


@dataclass(frozen=True)
class Job:
    """One set of hospitals, by every kind, in plain values that a new process can take."""

    data: Path
    configs: tuple[tuple[str, str], ...]  # kind -> configuration as JSON
    still: bool
    cache: Path


def run_job(job: Job) -> dict[str, Any]:
    """The head rounds once, and the tuning rounds by each kind."""
    torch.set_num_threads(1)
    configs = {kind: config_from_json(text) for kind, text in job.configs}
    first = configs["apart"]
    folders = {folder.name: folder for folder in find_sites(job.data)}
    sites = {name: open_patients(read_site(f, first, simulated=True), first, job.cache) for name, f in folders.items()}
    external = sites.pop("external")
    training = {name: split(patients, first.evaluation.holdout)[0] for name, patients in sorted(sites.items())}
    begun = get_arrays(build_model(first))
    for number in range(1, first.training.head_rounds + 1):
        begun, _ = play(first, training, begun, number)
    found = {"head rounds": measured(first, begun, external)}
    for kind, config in configs.items():
        tuned = without_head(config) if job.still else config
        arrays = {**get_arrays(build_model(tuned)), **begun}
        rounds = []
        for number in range(first.training.head_rounds + 1, first.federation.rounds + 1):
            arrays, told = play(tuned, training, arrays, number, RANKS.get(kind, ()))
            rounds.append(told)
        found[kind] = {**measured(tuned, arrays, external), "rounds": rounds}
        Console(stderr=True).print(f"{job.data.name}, {kind}: MCC {found[kind]['mcc']:.3f}", highlight=False)
    return found


def without_head(config: RunConfig) -> RunConfig:
    """The head's optimizer does not move it."""
    return replace(config, training=replace(config.training, head_learning_rate=0.0))


def play(
    config: RunConfig, sites: Mapping[str, SiteData], arrays: Arrays, number: int, ranks: tuple[int, ...] = ()
) -> tuple[Arrays, dict[str, Any]]:
    """One round of FedAvg, and its figures."""
    model, replies = build_model(config), {}
    for index, (name, patients) in enumerate(sites.items()):
        seed, rank = site_seed(config.seed, name, number), ranks[index] if ranks else 0
        update = train_round(model, arrays, patients, config, round_number=number, site_seed=seed, rank=rank)
        change = Update.between(update.arrays, arrays)
        replies[name] = SiteReply(
            name,
            number,
            update=change,
            patients=update.patients,
            labelled=update.labelled,
            counts_shared=True,
            metrics=update.metrics,
        )
    new, _, terms = aggregate(config.federation, config.federation.aggregator.init(arrays), arrays, replies)
    return new, {
        "round": number,
        "loss": terms["loss"],
        **low_rank_figures(config.federation, arrays, replies, new),
        "down": record_bytes(pack_arrays(arrays)),
        "up": record_bytes(pack_arrays(next(iter(replies.values())).update.change)),
    }


def measured(config: RunConfig, arrays: Arrays, external: SiteData) -> dict[str, Any]:
    """Of the external patients."""
    said = predict(TrainedModel(build_model(config), arrays, config), external)
    result = evaluate(external.labels, said, config.task.classes, bootstrap=0, generator=np.random.default_rng(0))
    return {"n": result["n"], "mcc": result["mcc"]["value"], "auroc": result["auroc"]["macro"]}


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    """A row for each kind: measures of each set of hospitals, deviations by round, kilobytes."""
    table = Table("kind", *(f"{name}: MCC, AUROC" for name in results), "deviation by round", "left", "kB down, up")
    for kind in next(iter(results.values())):
        each = [result[kind] for result in results.values()]
        rounds = [one.get("rounds", []) for one in each]
        means = {
            name: " ".join(
                f"{sum(column) / len(column):.1e}" for row in zip(*rounds, strict=True) if (column := _column(row, name))
            )
            for name in ("deviation", "left")
        }
        size = f"{rounds[0][0]['down'] / 1e3:.0f}, {rounds[0][0]['up'] / 1e3:.0f}" if rounds[0] else ""
        table.add_row(kind, *(f"{one['mcc']:.3f}, {one['auroc']:.3f}" for one in each), means["deviation"], means["left"], size)
    Console(width=200).print(table)


def _column(row: tuple[Mapping[str, Any], ...], name: str) -> list[float]:
    return [told[name] for told in row if name in told]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--still", action="store_true", help="the head stays as the head rounds left it")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    path, settings = config_path(arguments.config), (*SETTINGS, *arguments.set)
    configs = {kind: load_config(path, (*settings, *more)) for kind, more in KINDS.items()}
    texts = tuple((kind, config.to_json()) for kind, config in configs.items())
    jobs = {data.name: Job(data, texts, arguments.still, default_cache() / "slices") for data in arguments.data}
    known = identity(configs["apart"], still=arguments.still)
    show(run_kept(arguments.out, known, run_job, jobs, arguments.workers, lambda found: f"apart {found['apart']['mcc']:.3f}"))


if __name__ == "__main__":
    main()
