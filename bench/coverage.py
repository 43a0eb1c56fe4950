"""How often the 95% intervals of the report hold the true value: simulated hospitals whose truth is known.

    python bench/coverage.py bench/coverage.json

A hospital is n patients of a fixed mix of classes and two models, the second a little worse, whose errors go together (their
scores correlate by 0.6 given the class). The truth is what a million patients give. What is done is kept in OUT: an interrupted
measurement goes on.
"""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from common.files import write_atomic
from common.metrics.classification import evaluate, paired_difference

CLASSES = ("a", "b", "c")
MEASURES = ("mcc", "balanced_accuracy", "auroc_macro", "brier", "difference")
CORRELATION = 0.6
POPULATION = 1_000_000

Floats = NDArray[np.float64]
Hospital = tuple[NDArray[np.int64], Floats, Floats]  # truth [N], probabilities [N, C] of two models


@dataclass(frozen=True)
class Setting:
    """What kind of hospital.

    Args:
        mix: share of each class.
        skill: of the two models: how far the true class's score lies above the others', in standard deviations.
    """

    mix: tuple[float, float, float]
    skill: tuple[float, float]


SETTINGS = {
    "even mix, fair models": Setting((0.36, 0.34, 0.30), (1.0, 0.7)),  # the mix of the phantoms' external hospital
    "uneven mix, good models": Setting((0.50, 0.33, 0.17), (1.5, 1.2)),
    "uneven mix, excellent models": Setting((0.50, 0.33, 0.17), (2.2, 1.8)),
}


def simulate(setting: Setting, patients: int, generator: np.random.Generator) -> Hospital:
    """One hospital, or the population."""
    labels = generator.choice(len(setting.mix), patients, p=setting.mix)
    noise, other = generator.normal(size=(2, patients, len(setting.mix)))
    both = noise, CORRELATION * noise + np.sqrt(1 - CORRELATION**2) * other
    scores = [np.exp(1.5 * (each + skill * np.eye(3)[labels])) for each, skill in zip(both, setting.skill, strict=True)]
    first, second = (s / s.sum(axis=1, keepdims=True) for s in scores)
    return labels, first, second


def measured(hospital: Hospital, resamples: int, seed: int) -> dict[str, tuple[float, float | None, float | None]]:
    """Value, low and high of each of MEASURES, as the report would have them."""
    labels, first, second = hospital
    options: Any = {"bootstrap": resamples}
    found = evaluate(labels, first, CLASSES, generator=np.random.default_rng(seed), **options)
    paired: Any = paired_difference(labels, first, second, generator=np.random.default_rng(seed), **options)
    values = found | {"auroc_macro": found["auroc"]["macro"]}
    spans = found["intervals"]
    rows: dict[str, Any] = {name: (values[name], spans[name]["low"], spans[name]["high"]) for name in MEASURES[1:4]}
    return {
        name: (span["value"], span["low"], span["high"]) for name, span in (("mcc", found["mcc"]), ("difference", paired))
    } | rows


def coverage(setting: Setting, patients: int, hospitals: int, resamples: int, seed: int) -> dict[str, Any]:
    """For each measure: the truth, and the shares of hospitals whose interval holds it, lies below it, lies above it."""
    generator = np.random.default_rng([seed, patients])
    truth = {name: row[0] for name, row in measured(simulate(setting, POPULATION, generator), 0, 0).items()}
    held, under, over = (dict.fromkeys(MEASURES, 0) for _ in range(3))
    for number in range(hospitals):
        for name, (_, low, high) in measured(simulate(setting, patients, generator), resamples, number).items():
            under[name] += high is not None and high < truth[name]
            over[name] += low is not None and low > truth[name]
            held[name] += low is not None and high is not None and low <= truth[name] <= high
    shares = {"held": held, "below": under, "above": over}
    return {m: {"truth": truth[m]} | {what: counts[m] / hospitals for what, counts in shares.items()} for m in MEASURES}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hospitals", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--patients", nargs="+", type=int, default=[60, 100, 243])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    console = Console()
    identity = {"hospitals": arguments.hospitals, "resamples": arguments.resamples}
    results = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else identity
    if {key: results.get(key) for key in identity} != identity:
        raise SystemExit(f"{arguments.out} holds results of other numbers. Name another file.")
    cells = results.get("coverage", {})
    todo = {f"{name}, n = {n}": (setting, n) for name, setting in SETTINGS.items() for n in arguments.patients}
    with ProcessPoolExecutor(arguments.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        work = {key: cell for key, cell in todo.items() if key not in cells}
        futures = {pool.submit(coverage, *cell, arguments.hospitals, arguments.resamples, 5): key for key, cell in work.items()}
        for future in as_completed(futures):
            cells[futures[future]] = future.result()
            text = json.dumps(identity | {"coverage": {key: cells[key] for key in todo if key in cells}}, indent=1) + "\n"
            write_atomic(arguments.out, text.encode())
            said = ", ".join(f"{name} {entry['held']:.1%}" for name, entry in cells[futures[future]].items())
            console.print(f"{futures[future]}: {said}; {len(cells)} of {len(todo)}", highlight=False, soft_wrap=True)
    outside = [f"{key}, {m}" for key in todo for m, entry in cells[key].items() if not 0.93 <= entry["held"] <= 0.97]
    console.print("Outside 93% to 97%: " + ("; ".join(outside) or "none"), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
