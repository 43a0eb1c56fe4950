"""What one lying hospital of four can do within the limits that a deployed federation sets by itself.

    for seed in 1409 1410 1411; do fedmri-sim phantom DIR/$seed --sites 5 --patients 24 --external 300 --seed $seed; done
    python bench/liar.py OUT.json --config private --set privacy.enabled=false --set objective.modality_dropout=0 --data DIR

The liar trains as the others do, and then sends another change and another number of patients. What it sends passes the norm
check (`federation.max_update_ratio`) or is left out; then the bounds of `server.strategy.influence` bring it down, nothing being
agreed about patients. Beside it the federation without that hospital: what finding it out at once would give. DIR holds several
folders of hospitals, each trained by itself. Losses of MCC are paired: honest and lied to on the same resamples of external
patients, the mean over the folders. What is done is kept in OUT.json: an interrupted measurement goes on.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import utility
from byzantine import EXTERNAL, labelled, share_features
from kept import Result, identity, run_kept
from labels import mcc_of
from options import hospital_options
from rich.console import Console
from rich.table import Table

from common.cli import config_path
from common.config.run import RunConfig, config_from_json, load_config
from common.data.cache import default_cache
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.data.holdout import split
from common.messages.round import MAX_PATIENTS, SiteReply
from common.messages.update import Update
from common.metrics.bootstrap import draw_counts, t_interval
from common.models.arrays import Arrays, norm
from common.models.build import build_model
from server.strategy.aggregation import norm_outliers
from server.strategy.influence import at_hospitals, levelled
from simulation.baselines import open_patients
from simulation.in_process import Replies, federate

HONEST, SITES, FAR = "honest", 4, 25.0  # times its own change: just within the norm check


@dataclass(frozen=True)
class Lie:
    """What the liar sends in the place of its own reply.

    Attributes:
        factor: of its change; of random values of that norm, or of the mean of the others' changes.
        of: "own", "random" or "others".
        counts: whether it claims as many patients as the wire can carry.
        absent: whether it is not there at all.
    """

    factor: float = 1.0
    of: str = "own"
    counts: bool = True
    absent: bool = False


LIES = {
    HONEST: Lie(counts=False),
    "is not there": Lie(absent=True),
    "claims patients": Lie(),
    "claims patients, changes nothing": Lie(0.0),
    "claims patients, far along its own change": Lie(FAR),
    "claims patients, far against its own change": Lie(-FAR),
    "claims patients, far at random": Lie(FAR, "random"),
    "far against its own change": Lie(-FAR, counts=False),
    "against its own change": Lie(-1.0, counts=False),
    "at random": Lie(1.0, "random", counts=False),
    "against the others' mean": Lie(-1.0, "others", counts=False),
    "far against the others' mean": Lie(-FAR, "others", counts=False),
}


@dataclass(frozen=True)
class Job:
    """One federation, in plain values that a new process can take."""

    lie: str
    config: str
    data: Path
    liar: str


def received(lie: Lie, liar: str, config: RunConfig) -> Callable[[Replies], Replies]:
    """What reaches the aggregator of a round's honest replies."""
    generator = np.random.default_rng(config.seed)

    def replies_of(honest: Replies) -> Replies:
        sent = honest if lie.absent else honest | {liar: _told(lie, liar, honest, generator)}
        outliers = norm_outliers(sent, config.federation.max_update_ratio)
        return levelled({name: reply for name, reply in sent.items() if name not in outliers}, {})

    return replies_of


def _told(lie: Lie, liar: str, honest: Replies, generator: np.random.Generator) -> SiteReply:
    change: Arrays = honest[liar].update.change
    if lie.of == "random":
        change = _random(change, generator)
    if lie.of == "others":
        others = [reply.update.change for name, reply in honest.items() if name != liar]
        change = {name: np.mean([other[name] for other in others], axis=0) for name in change}
    sent = {name: np.asarray(lie.factor * array, np.float32) for name, array in change.items()}
    told = replace(honest[liar], update=Update(sent))
    return replace(told, patients=MAX_PATIENTS, labelled=MAX_PATIENTS) if lie.counts else told


def _random(own: Arrays, generator: np.random.Generator) -> Arrays:
    """Values of the length of the change, in the arrays that it changes."""
    drawn = {name: generator.normal(size=array.shape) * array.any() for name, array in sorted(own.items())}
    scale = norm(own) / max(norm({name: np.asarray(array, np.float32) for name, array in drawn.items()}), 1e-12)
    return {name: np.asarray(scale * array, np.float32) for name, array in drawn.items()}


def run_job(job: Job) -> Result:
    """Train with the liar, and answer for the external patients."""
    torch.set_num_threads(1)
    config = config_from_json(job.config)
    config = replace(config, federation=at_hospitals(config.federation))
    names = labelled(job.data, config)[:SITES]
    if LIES[job.lie].absent:
        names.remove(job.liar)
    sites = {name: split(_open(job.data, config, name), config.evaluation.holdout)[0] for name in names}
    model, external = build_model(config), _open(job.data, config, EXTERNAL)
    arrays = federate(model, sites, config, received(LIES[job.lie], job.liar, config))
    said = utility.answer(model, arrays, external, config, share_features())
    return {"truth": external.labels.tolist(), "said": said.argmax(1).tolist()}


def _open(data: Path, config: RunConfig, name: str) -> SiteData:
    return open_patients(read_site(data / name, config, simulated=True), config, default_cache() / "slices")


def show(runs: dict[str, Result], folders: list[str]) -> None:
    """A row for each lie."""
    table = Table("the liar", "MCC of each folder", "MCC", "MCC minus honest (95%)")
    honest = [runs[f"{HONEST}, {folder}"] for folder in folders]
    n = len(honest[0]["truth"])
    once, counts = np.ones((1, n)), draw_counts(n, 2000, np.random.default_rng(0))
    assert counts is not None
    for lie in LIES:
        own = [runs[f"{lie}, {folder}"] for folder in folders]
        change = float(mcc_of(own, once)[0] - mcc_of(honest, once)[0])
        span = t_interval(change, mcc_of(own, counts) - mcc_of(honest, counts), n)
        table.add_row(
            lie,
            " ".join(f"{mcc_of([one], once)[0]:.3f}" for one in own),
            f"{mcc_of(own, once)[0]:.3f}",
            f"{change:+.3f} ({span['low']:+.3f} to {span['high']:+.3f})",
        )
    Console(width=140).print(table)


def main() -> None:
    """Entry point."""
    parser = hospital_options(__doc__)
    parser.add_argument("--liar", default="hospital-b")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    config = load_config(config_path(arguments.config), tuple(arguments.set))
    folders = sorted(folder.name for folder in arguments.data.iterdir() if (folder / EXTERNAL).is_dir())
    jobs = {}
    for folder, lie in itertools.product(folders, LIES):
        jobs[f"{lie}, {folder}"] = Job(lie, config.to_json(), arguments.data / folder, arguments.liar)
    known: dict[str, Any] = identity(config, data=arguments.data.name, liar=arguments.liar)
    show(run_kept(arguments.out, known, run_job, jobs, arguments.workers, lambda found: f"{len(found['said'])} answers"), folders)


if __name__ == "__main__":
    main()
