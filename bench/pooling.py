"""What another pooling of patch tokens is worth before anything is trained: the linear probe on the frozen backbone's tokens.

    fedmri-sim phantom DIR --sites 4 --patients 24 --external 100 --seed 21
    python bench/pooling.py bench/pooling.json --data DIR --kept FOLDER
    python bench/pooling.py bench/pooling-real.json --config real --set weights=FILE --data DIR --folds du cs fg+ez --kept FOLDER

The probe is the baseline's (`simulation/probe.py`): of each modality the CLS token and the pooled patch tokens; class-balanced
logistic regression. Every fold's patients are answered by a probe that never saw their site, and figures are of all answers
together; differences to `mean` are paired on the same resamples. Nothing is chosen here: every row is told.

Arms: `mean`; `centre`, the inner part of the window; `lesion`, weights by the mask itself, which test patients need too;
`guided`, as in training: each site fits its queries to its own masks, their mean weights the tokens, and test patients need none.
Windows: those of the configuration; other counts of slices, fields of view and axes; windows that are moved off the tumour at
random; slices and windows as they are chosen where no mask is known (the masks of training sites are still there to fit to).
Several windows are one stack of slices, as `data.axes` and several of `data.field_of_view` make it.

The last row is chosen, and not by the answers that it is measured on: for each fold the window and the pooling whose AUROC is
best where the other folds' hospitals are left out in turn. `lesion`, which needs test patients' masks, is no choice; without two
other folds there is none.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from options import hospital_options
from window_tokens import Tokens, Window, patient_tokens

from common.cli import config_path
from common.config.run import RunConfig, load_config
from common.config.site import find_sites
from common.data.cases import read_site
from common.files import write_atomic
from common.metrics.bootstrap import auroc, confusion, draw_counts, mcc, t_interval
from common.models.build import build_model
from common.pooling.centre import Centre
from common.pooling.guided import Guided
from simulation.probe import linear_probe

Floats = NDArray[np.float64]
Pool = Callable[[Tokens, list[int]], NDArray[Any]]  # weights that broadcast to [S, M, P]
Patient = tuple[str, int, Tokens]  # site, label, tokens

EVERY = (3, 5, 9, 15)
WINDOWS = {
    "as configured": [Window(112.0, EVERY)],
    "80 mm": [Window(80.0)],
    "140 mm": [Window(140.0)],
    "coronal": [Window(112.0, (3, 5), axis="coronal")],
    "sagittal": [Window(112.0, (3, 5), axis="sagittal")],
    "112 and 80 mm": [Window(112.0, EVERY), Window(80.0)],
    "112 and 140 mm": [Window(112.0, EVERY), Window(140.0)],
    "three axes": [Window(112.0, EVERY), Window(112.0, (3, 5), axis="coronal"), Window(112.0, (3, 5), axis="sagittal")],
    **{f"moved {by} mm, seed {seed}": [Window(112.0, shift=float(by), seed=seed)] for by in (20, 40) for seed in range(3)},
    "no mask": [Window(112.0, (5, 9), masked=False)],
}
CHOICES = ("mean", "centre", "guided")  # that no test patient needs a mask for
MOST_FEW = 2  # folds among which nothing can be chosen without one of them


class Trial(NamedTuple):
    """One window and pooling."""

    name: str
    inner: list[float]  # by fold, AUROC among the other hospitals
    said: Floats  # [N, C]


def stacked(windows: Sequence[list[Patient]], count: int) -> list[Patient]:
    """The same patients with the slices of all windows, so many of each, in one stack."""
    return [(*same[0][:2], _joined([tokens for _, _, tokens in same], count)) for same in zip(*windows, strict=True)]


def _joined(windows: Sequence[Tokens], count: int) -> Tokens:
    parts = [[array[tokens.places[count]] for array in (tokens.cls, tokens.patches, tokens.lesion)] for tokens in windows]
    cls, patches, lesion = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Tokens(cls, patches, lesion, windows[0].present, {count: list(range(len(cls)))})


def pooled(tokens: Tokens, rows: list[int], weigh: Pool) -> Floats:
    """[M, 2D]: CLS beside the weighted mean patch token; NaN where a modality is absent."""
    patches = tokens.patches[rows]
    weights = np.broadcast_to(weigh(tokens, rows), patches.shape[:3])
    share = weights / np.maximum(weights.sum((0, 2), keepdims=True), 1e-12)
    found = np.concatenate([tokens.cls[rows].mean(0), np.einsum("smp,smpd->md", share, patches)], 1)
    found[~tokens.present] = np.nan
    return found.astype(np.float64)


def evenly(tokens: Tokens, rows: list[int]) -> NDArray[Any]:
    """The mean."""
    return np.ones((len(rows), 1, 1))


def centred(tokens: Tokens, rows: list[int]) -> NDArray[Any]:
    """The default inner square."""
    return np.asarray(Centre().weights(torch.zeros(1, len(rows), 1, tokens.patches.shape[2], 1), {})[0])


def by_lesion(tokens: Tokens, rows: list[int]) -> NDArray[Any]:
    """The mask; without one, the mean."""
    lesion = tokens.lesion[rows][:, None]
    return lesion if lesion.any() else evenly(tokens, rows)


def guided(training: Sequence[Patient], count: int) -> Pool:
    """Each site's fit, averaged by patients; as `common.training.guide` and the server do it."""
    pooling, D, M = Guided(), training[0][2].patches.shape[3], len(training[0][2].present)
    start, total = pooling.start(M, D, torch.Generator()), torch.zeros(M, D)
    for name in sorted({site for site, _, _ in training}):
        own = [tokens for site, _, tokens in training if site == name]
        sums = sum(pooling.sums(*_batch(tokens, tokens.places[count])) for tokens in own)
        assert isinstance(sums, torch.Tensor)
        total += len(own) / len(training) * pooling.solve(sums, start)["query"]

    def weigh(tokens: Tokens, rows: list[int]) -> NDArray[Any]:
        return np.asarray(pooling.weights(torch.from_numpy(tokens.patches[rows])[None], {"query": total})[0])

    return weigh


def _batch(tokens: Tokens, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One patient's patches, present and lesion, as `Guided.sums` takes them."""
    patches, lesion = torch.from_numpy(tokens.patches[rows]), torch.from_numpy(tokens.lesion[rows])
    return patches[None], torch.from_numpy(tokens.present)[None], lesion[None]


def answer(patients: Sequence[Patient], count: int, arm: str, folds: Sequence[str], classes: int) -> Floats:
    """Probabilities [N, C] of the folds' patients; NaN rows for sites that are never left out.

    Args:
        patients: as `stacked` made them.
        count: of slices, in each window.
        arm: of `ARMS`.
        folds: sites joined by +.
        classes: C.
    """
    sites, labels = np.array([site for site, _, _ in patients]), np.array([label for _, label, _ in patients])
    said = np.full((len(labels), classes), np.nan)
    for fold in folds:
        left_out = np.isin(sites, fold.split("+"))
        training = [patient for patient, out in zip(patients, left_out, strict=True) if not out]
        weigh = guided(training, count) if arm == "guided" else ARMS[arm]
        x = np.stack([pooled(tokens, tokens.places[count], weigh) for _, _, tokens in patients])
        said[left_out] = linear_probe(x[~left_out], labels[~left_out], x[left_out], classes=classes)
    return said


def inner_auroc(patients: Sequence[Patient], count: int, arm: str, folds: Sequence[str], classes: int) -> list[float]:
    """For each fold the AUROC among the others' hospitals, each of them left out in turn; nothing of the fold is read."""
    found = []
    for fold in folds:
        others = [patient for patient in patients if patient[0] not in fold.split("+")]
        said = answer(others, count, arm, [other for other in folds if other != fold], classes)
        asked, labels = ~np.isnan(said[:, 0]), np.array([label for _, label, _ in others])
        found.append(float(auroc(labels[asked], said[asked], np.ones((1, int(asked.sum()))))[0]))
    return found


ARMS: dict[str, Pool] = {"mean": evenly, "centre": centred, "lesion": by_lesion, "guided": evenly}


def measured(labels: NDArray[np.int64], said: Floats, plain: Floats) -> dict[str, Any]:
    """AUROC, that of each class, MCC, and both minus those of `plain`, with 95% intervals over patients."""
    once, counts = np.ones((1, len(labels))), draw_counts(len(labels), 2000, np.random.default_rng(0))
    assert counts is not None
    C = said.shape[1]

    def both(p: Floats, drawn: Floats) -> tuple[Floats, Floats]:
        return auroc(labels, p, drawn), mcc(confusion(labels, p.argmax(1), C, drawn))

    found: dict[str, Any] = {}
    for name, own, other, ours, theirs in zip(
        ("auroc", "mcc"), both(said, once), both(plain, once), both(said, counts), both(plain, counts), strict=True
    ):
        gain = float(own[0] - other[0])
        found |= {name: float(own[0]), f"{name}_gain": {"value": gain, **t_interval(gain, ours - theirs, len(labels))}}
    each = [float(auroc(np.asarray(labels == c, np.int64), np.stack([-said[:, c], said[:, c]], 1), once)[0]) for c in range(C)]
    return found | {"per_class": each}


def windows_of(arguments: argparse.Namespace) -> list[tuple[str, list[Window], int]]:
    """Name, windows and the count of slices in each: every count that was asked for and that all of its windows have."""
    plans = []
    for name in arguments.windows:
        windows = WINDOWS[name]
        for count in (count for count in arguments.slices if all(count in window.counts for window in windows)):
            plans.append((f"{name}, {count} slices", windows, count))
    return plans


def measure(arguments: argparse.Namespace) -> None:
    """Every window and arm; tokens that are kept already are read."""
    config = load_config(config_path(arguments.config), tuple(arguments.set))
    torch.set_num_threads(1)
    model, classes = build_model(config).eval(), len(config.task.classes)
    show(("window", "pooling", "AUROC", *config.task.classes, "MCC", "AUROC minus mean", "MCC minus mean"))
    show(("---",) * (6 + classes))
    results: dict[str, Any] = {}
    trials: list[Trial] = []
    for name, windows, count in windows_of(arguments):
        patients = stacked([_patients(arguments, config, window, model) for window in windows], count)
        sites = np.array([site for site, _, _ in patients])
        asked = np.isin(sites, "+".join(arguments.folds).split("+"))
        labels = np.array([label for _, label, _ in patients])[asked]
        said = {arm: answer(patients, count, arm, arguments.folds, classes)[asked] for arm in ARMS}
        for arm, p in said.items():
            _tell(results, name, arm, measured(labels, p, said["mean"]))
        for arm in (arm for arm in CHOICES if len(arguments.folds) > MOST_FEW):
            trials.append(Trial(f"{name}: {arm}", inner_auroc(patients, count, arm, arguments.folds, classes), said[arm]))
        write_atomic(arguments.out, (json.dumps({"patients": len(labels), "rows": results}, indent=1) + "\n").encode())
    if trials:
        best, p = chosen(trials, arguments.folds, sites[asked])
        _tell(results, "chosen in training", "; ".join(f"{fold}: {name}" for fold, name in best.items()), measured(labels, p, p))
        inner = {trial.name: dict(zip(arguments.folds, trial.inner, strict=True)) for trial in trials}
        about = {"patients": len(labels), "rows": results, "inner_auroc": inner}
        write_atomic(arguments.out, (json.dumps(about, indent=1) + "\n").encode())


def chosen(trials: Sequence[Trial], folds: Sequence[str], sites: NDArray[Any]) -> tuple[dict[str, str], Floats]:
    """By fold the trial that was best among the other hospitals, and its answers [N, C]; `sites` are of these N."""
    best = {fold: max(trials, key=lambda trial: trial.inner[number]) for number, fold in enumerate(folds)}
    said = np.full_like(trials[0].said, np.nan)
    for fold, trial in best.items():
        said[np.isin(sites, fold.split("+"))] = trial.said[np.isin(sites, fold.split("+"))]
    return {fold: trial.name for fold, trial in best.items()}, said


def _tell(results: dict[str, Any], name: str, arm: str, found: dict[str, Any]) -> None:
    """Keep and print one row."""
    results[f"{name}: {arm}"] = found
    gains = [f"{g['value']:+.3f} ({g['low']:+.3f} to {g['high']:+.3f})" for g in (found["auroc_gain"], found["mcc_gain"])]
    each = [f"{value:.3f}" for value in found["per_class"]]
    show((name, arm, f"{found['auroc']:.3f}", *each, f"{found['mcc']:.3f}", *gains))


def show(cells: Sequence[str]) -> None:
    """A row of a Markdown table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def _patients(arguments: argparse.Namespace, config: RunConfig, window: Window, model: Any) -> list[Patient]:
    """The labelled patients of all sites."""
    found = []
    for folder in find_sites(arguments.data):
        for case in read_site(folder, config, simulated=True).cases:
            if case.label >= 0:
                found += [(folder.name, case.label, t) for t in patient_tokens(case, [window], model, config, arguments.kept)]
    return found


def main() -> None:
    """Entry point."""
    parser = hospital_options(__doc__)
    parser.add_argument("--folds", nargs="+", default=["external"], help="external sites; joined by +, left out together")
    parser.add_argument("--kept", type=Path, required=True, help="folder of tokens: about 1 MB a patient and window")
    parser.add_argument("--windows", nargs="+", choices=WINDOWS, default=["as configured"])
    parser.add_argument("--slices", nargs="+", type=int, default=list(EVERY), help="counts, of those that a window has")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
