"""How the cost of a round grows with what there is more of: exponents, fitted to processor seconds.

    python bench/growth.py OUT.json [--turns 3]

A small model, one thread, noise for images: a first head round and a tuning round over patients, slices and the backbone's width;
whole federations (in one process, with the server's aggregation) of either kind of round over sites and rounds. The exponent is
the slope of log seconds over log size, by least squares over medians. 1: twice as much costs twice as much.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from kept import Result, run_kept

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.messages.code_version import code_hash
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.training import kept
from common.training.local import train_round
from simulation.in_process import federate

SIZES = {
    "patients": (8, 16, 32, 64),
    "slices": (2, 4, 8, 16),
    "width": ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224"),
    "sites": (2, 4, 8, 16),
    "rounds": (2, 4, 8, 16),
}
WIDTHS = {"vit_tiny_patch16_224": 192, "vit_small_patch16_224": 384, "vit_base_patch16_224": 768}
ROUNDS = ("head", "tuning")
Job = tuple[str, int | str, str, int]  # what grows, its size, the round, the turn


def main() -> None:
    """Measure what the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    jobs: dict[str, Job] = {
        f"{what} {size} {kind} {turn}": (what, size, kind, turn)
        for turn in range(arguments.turns)
        for what, sizes in SIZES.items()
        for kind in ROUNDS
        for size in sizes
    }
    run_kept(arguments.out, {"code": code_hash()}, measure, jobs, 1, lambda found: f"{found['seconds']:.3f} s", table)
    print(json.dumps(json.loads(arguments.out.read_text(encoding="utf-8"))["exponents"], indent=2))


def measure(job: Job) -> Result:
    """Processor seconds of one round, or of one federation."""
    torch.set_num_threads(1)
    what, size, kind, _ = job
    run = (federation if what in ("sites", "rounds") else one_round)(what, size, kind)
    run()  # what a process does only once
    kept.forget()
    began = time.process_time()
    run()
    number = WIDTHS[size] if isinstance(size, str) else size
    return {"what": what, "size": number, "round": kind, "seconds": round(time.process_time() - began, 4)}


def table(runs: dict[str, Result]) -> dict[str, dict[str, object]]:
    """Medians by size, and the exponent of each curve of which two points or more are there."""
    curves: dict[str, dict[int, list[float]]] = {}
    for run in runs.values():
        curves.setdefault(f"{run['what']}, {run['round']}", {}).setdefault(run["size"], []).append(run["seconds"])
    medians = {name: {size: statistics.median(found) for size, found in sorted(by.items())} for name, by in curves.items()}
    exponents = {name: exponent(points) for name, points in medians.items() if len(points) > 1}
    return {"exponents": dict(exponents), "medians": dict(medians)}


def exponent(points: dict[int, float]) -> float:
    """Slope of log seconds over log size."""
    return round(float(np.polyfit(np.log(list(points)), np.log(list(points.values())), 1)[0]), 3)


def one_round(what: str, size: int | str, kind: str) -> Callable[[], object]:
    """A site's round; nothing of an earlier one is kept."""
    slices = int(size) if what == "slices" else 2
    backbone, patients = (str(size) if what == "width" else "fedmri_vit_mini"), (int(size) if what == "patients" else 8)
    config = config_of(kind, slices, backbone, rounds=2)
    model, site = build_model(config), site_of("s", patients, slices)
    arrays = get_arrays(model)
    return lambda: train_round(model, arrays, site, config, round_number=1, site_seed=0)


def federation(what: str, size: int | str, kind: str) -> Callable[[], object]:
    """All rounds of several sites."""
    number = int(size)
    sites, rounds = (number, 2) if what == "sites" else (2, number)
    config = config_of(kind, 2, "fedmri_vit_mini", rounds=rounds)
    model = build_model(config)
    every = {f"s{i}": site_of(f"s{i}", 4, 2) for i in range(sites)}
    return lambda: federate(model, every, config)


def config_of(kind: str, slices: int, backbone: str, *, rounds: int) -> RunConfig:
    """Rounds of one kind; a step sees all slices, so that both kinds read the same images."""
    return config_from_table(
        {
            "data": {"size": 64, "slices": slices},
            "model": {"backbone": backbone, "weights": "random", "blocks": 2, "joint_blocks": 2, "head_hidden": 0},
            "objective": {"local_crops": 0, "modality_dropout": 0.3},
            "training": {
                "precision": "fp32",
                "batch_size": 4,
                "slices_per_step": slices,
                "head_rounds": rounds if kind == "head" else 0,
                "head_steps": 20,
            },
            "federation": {"rounds": rounds},
        }
    )


def site_of(name: str, patients: int, slices: int) -> SiteData:
    """Noise, other for each site."""
    generator = np.random.default_rng(list(name.encode()))
    images = generator.random((patients, slices, 4, 64, 64), np.float32).astype(np.float16)
    ids = tuple(f"{name}-{i}" for i in range(patients))
    return SiteData(name, ids, images, np.ones((patients, 4), bool), np.arange(patients) % 3, name)


if __name__ == "__main__":
    main()
