"""Who is flagged as out of distribution: external gliomas, broken physics, single cases; each hospital external in turn.

    fedmri-sim phantom PHANTOMS --sites 4 --patients 24 --external 40 --seed 7 --broken 12
    python bench/ood.py OUT.json --config demo --data PHANTOMS --folds external --cases CASES
    python bench/ood.py OUT.json --config real --set weights=FILE --data HOSPITALS --folds du cs fg+ez --cases CASES

No training: features are those of a model that is not trained yet, or of `--model FILE` (then one fold, the one it was trained
for). Moments and thresholds are made as in a run: a site's held-back patients stand behind the adapted features, the others
behind the rest, and each site scores all its patients against the others' moments; or, a second way, only a share of them, drawn
many times.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from options import hospital_options
from rich.console import Console

from common.cli import config_path
from common.config.run import RunConfig, load_config
from common.config.site import SiteConfig, find_sites
from common.data.cache import default_cache
from common.data.cases import Case, Site, read_site
from common.data.holdout import held_back
from common.evaluation.ood import score as ood
from common.evaluation.ood.features import features, only
from common.files import write_atomic
from common.messages.code_version import code_hash
from common.models.arrays import Arrays, get_arrays, load_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from simulation.baselines import open_patients


@dataclass(frozen=True, eq=False)
class Known:
    """Features [N, M, F] of the patients of one site, kind of broken physics, or case; who of them is held back [N]."""

    features: NDArray[np.float64]
    held: NDArray[np.bool_]

    @property
    def moments(self) -> Arrays:
        """As the site tells them in a run."""
        return ood.moments(self.features[~self.held], self.features[self.held])


Features = dict[str, Known]  # by site, by broken: FAULT, by case: NAME

CASE_FILES = {"t1": "t1", "t1c": "t1ce", "t2": "t2", "flair": "flair"}
MASKS = ("seg.nii.gz", "seg_model_fused.nii.gz", "ms_lesion.nii.gz")
DRAWS = 200  # of the patients held back


def everybody(arguments: argparse.Namespace, config: RunConfig) -> Iterator[Site]:
    """All sites and cases, to be read once whatever the folds."""
    for folder in find_sites(arguments.data):
        yield read_site(folder, config, simulated=True)
    for folder in find_sites(arguments.data / "broken"):
        yield replace(read_site(folder, config, simulated=True), name=f"broken: {folder.name}")
    for folder in sorted(arguments.cases.iterdir()) if arguments.cases else ():
        files = {m: folder / f"{name}.nii.gz" for m, name in CASE_FILES.items() if m in config.data.modalities}
        for mask in (next((folder / name for name in MASKS if (folder / name).exists()), None), None):
            name = f"{folder.name}, {'mask' if mask else 'no mask'}"
            yield Site(f"case: {name}", folder, (Case(name, files, mask, -1, None, None, folder),), SiteConfig())


def all_features(arguments: argparse.Namespace, config: RunConfig, console: Console) -> Features:
    """Of every site and case."""
    model = build_model(config)
    arrays = load_arrays(arguments.model)[0] if arguments.model else get_arrays(model)
    found = {}
    for site in everybody(arguments, config):
        patients = open_patients(site, config, default_cache() / "slices")
        held = held_back(patients.ids, config.evaluation.holdout)
        found[site.name] = Known(features(TrainedModel(model, arrays, config), patients), held)
        console.print(f"{site.name}: {len(patients)}", highlight=False)
    return found


def measure_fold(found: Features, external: list[str], hospitals: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Threshold, rates and scores with these sites left out."""
    training = [name for name in hospitals if name not in external and found[name].held.any()]  # others tell no sums
    if len(training) < 2:
        raise SystemExit(f"Without {' and '.join(external)}: fewer than two sites hold patients back. Nobody can be scored.")
    scores = leave_one_out(found, training)
    reference = ood.Reference.fit(ood.pool(*(found[name].moments for name in training)))
    limit = ood.threshold(ood.histogram(np.concatenate(list(scores.values()))), arguments.rate)
    outside = np.concatenate([found[name].features for name in external])
    unlike = {name: known.features for name, known in found.items() if name not in hospitals}
    return {
        "external": external,
        "training": {name: len(found[name].held) for name in training},
        "held": {name: int(found[name].held.sum()) for name in training},
        "threshold": limit if np.isfinite(limit) else None,  # None: too few patients, nobody is flagged
        "scores": {name: [round(float(s), 3) for s in some] for name, some in scores.items()},
        "external_scores": [round(float(s), 3) for s in reference.score(outside)],
        "flagged": flagged(reference, outside, limit),
        "subsets": by_subset_size(reference, outside, limit),
        "strangers": {
            name: {"n": len(x), "flagged": flagged(reference, x, limit), "score": float(np.median(reference.score(x)))}
            for name, x in unlike.items()
        },
        "share_scored": share_scored(found, training, outside, unlike, arguments),
    }


def leave_one_out(found: Features, names: list[str]) -> dict[str, NDArray[np.float64]]:
    """Scores of each site's patients against the others' moments."""
    everyone = ood.pool(*(found[name].moments for name in names))
    return {name: ood.Reference.fit(ood.subtract(everyone, found[name].moments)).score(found[name].features) for name in names}


def share_scored(
    found: Features,
    training: list[str],
    outside: NDArray[np.float64],
    unlike: dict[str, NDArray[np.float64]],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """The same where only a share of the patients is scored, drawn many times: how often there is a threshold, and mean rates.

    The moments are of all the sites' patients, not of those that are left: it is the threshold's scatter that is of interest.
    """
    generator = np.random.default_rng(0)
    scores = np.concatenate(list(leave_one_out(found, training).values()))
    reference = ood.Reference.fit(ood.pool(*(found[name].moments for name in training)))
    draws = [scores[generator.random(len(scores)) < arguments.share] for _ in range(DRAWS)]
    limits = np.array([ood.threshold(ood.histogram(draw), arguments.rate) for draw in draws])
    rates = {name: np.mean([flagged(reference, x, limit) for limit in limits]) for name, x in unlike.items()}
    return {
        "share": arguments.share,
        "with_threshold": float(np.isfinite(limits).mean()),
        "flagged": float(np.mean([flagged(reference, outside, limit) for limit in limits])),
        "strangers": {name: float(rate) for name, rate in rates.items()},
    }


def flagged(reference: ood.Reference, patients: NDArray[np.float64], limit: float) -> float:
    """The share of the patients above the threshold."""
    return float((reference.score(patients) > limit).mean())


def by_subset_size(reference: ood.Reference, patients: NDArray[np.float64], limit: float) -> dict[str, float]:
    """Flagged of the external patients as if they had only 1, 2, ... of their modalities; mean over all subsets."""
    modalities = patients.shape[1]
    rates: dict[int, list[float]] = {}
    for kept in itertools.product([False, True], repeat=modalities):
        some = only(patients, np.tile(kept, (len(patients), 1)))
        scores = reference.score(some)
        if np.isfinite(scores).any():
            rates.setdefault(sum(kept), []).append(float((scores[np.isfinite(scores)] > limit).mean()))
    return {str(size): float(np.mean(found)) for size, found in sorted(rates.items())}


def show(result: dict[str, Any]) -> None:
    """The table, in Markdown."""
    folds = result["folds"]
    print("| | " + " | ".join(" + ".join(fold["external"]) + " external" for fold in folds) + " |")
    print("|---" * (len(folds) + 1) + "|")
    print("| patients behind the threshold | " + " | ".join(str(sum(f["training"].values())) for f in folds) + " |")
    print("| held back, behind the adapted features | " + " | ".join(str(sum(f["held"].values())) for f in folds) + " |")
    print("| threshold | " + " | ".join(f"{f['threshold']:.2f}" if f["threshold"] else "none" for f in folds) + " |")
    print(
        "| external gliomas flagged | " + " | ".join(f"{f['flagged']:.1%} of {len(f['external_scores'])}" for f in folds) + " |"
    )
    for name in folds[0]["strangers"]:
        cells = [f["strangers"][name] for f in folds]
        print(f"| {name} | " + " | ".join(_cell(cell) for cell in cells) + " |")
    with_threshold = [f"{f['share_scored']['with_threshold']:.0%}" for f in folds]
    share = folds[0]["share_scored"]["share"]
    print(f"| a threshold where only {share:.0%} are scored | " + " | ".join(with_threshold) + " |")


def _cell(cell: dict[str, Any]) -> str:
    if cell["n"] == 1:
        return f"{'**flagged**' if cell['flagged'] else 'not flagged'}, score {cell['score']:.2f}"
    return f"{cell['flagged']:.0%} of {cell['n']} flagged"


def main() -> None:
    """Entry point."""
    parser = hospital_options(__doc__)
    parser.add_argument("--folds", nargs="+", default=["external"], help="external sites; joined by +, left out together")
    parser.add_argument("--cases", type=Path, help="folder of single patients: NAME/{t1,t1ce,t2,flair}.nii.gz, perhaps a mask")
    parser.add_argument("--model", type=Path, help="model.safetensors of a run, for the adapted features")
    parser.add_argument("--rate", type=float, default=0.05, help="of patients like the training ones that may be flagged")
    parser.add_argument("--share", type=float, default=0.2, help="of patients scored, in the second way to a threshold")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(config_path(arguments.config), tuple(arguments.set))
    console = Console(stderr=True)
    found = all_features(arguments, config, console)
    hospitals = [folder.name for folder in find_sites(arguments.data)]
    result = {"code": code_hash(), "config": arguments.config, "model": "trained" if arguments.model else "not trained"}
    result["folds"] = [measure_fold(found, fold.split("+"), hospitals, arguments) for fold in arguments.folds]
    write_atomic(arguments.out, (json.dumps(result, indent=1) + "\n").encode())
    show(result)


if __name__ == "__main__":
    main()
