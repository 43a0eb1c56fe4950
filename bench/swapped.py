"""Fit and measure the weights by which `check` tells modalities that were mixed up: every hospital left out in turn.

    python bench/swapped.py measure REAL PHANTOMS out.json     # each hospital by weights of the others
    python bench/swapped.py fit REAL PHANTOMS common/data/review/swapped.json

REAL holds `tcga-lgg/SITE/sub-*` and `cases/*`; PHANTOMS is what `fedmri-sim phantom PHANTOMS --sites 3 --patients 6 --external 4
--seed 3` writes. Phantoms weigh 0.3 of a real patient: they are there for T2, of which the real data have three.
"""

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from common.data.gate.files import load_volume
from common.data.review.look import Look, look
from common.data.review.swapped import ENHANCED, KIND_OF, NAMES, SIZE, UNLIKELY, Namings, Weights, design, name_volumes
from common.data.review.thumbnail import Thumbnail, thumbnail
from common.data.volumes import resample

SUFFIXES = {"t1": ("T1w", "t1"), "t1c": ("ce-gadolinium_T1w", "t1ce"), "t2": ("T2w", "t2"), "flair": ("FLAIR", "flair")}
MASKS = ("desc-tumour_mask", "seg", "seg_model_fused", "ms_lesion")
PENALTY, PHANTOM = 0.1, 0.3
SAME_PERSON = ("TCGA-DU-7294", "sub-TCGADU7294")  # stands in two collections


@dataclass(frozen=True, eq=False)
class Example:
    """One patient, with or without the mask, and what the volumes look like."""

    hospital: str
    patient: str
    real: bool
    mask: bool
    seen: Look


def examples(real: Path, phantoms: Path) -> Iterator[Example]:
    """All patients, each with the mask and without."""
    for hospital, patient, one in thumbnails(real, phantoms, bare=True):
        yield Example(hospital, patient, not hospital.startswith("phantom"), one.tumour is not None, look(one))


def thumbnails(real: Path, phantoms: Path, *, bare: bool) -> Iterator[tuple[str, str, Thumbnail]]:
    """Hospital, patient and thumbnail of all who show a head; with `bare` each of them without the mask as well."""
    folders = [(path.parent.name, path) for path in sorted(real.glob("tcga-lgg/*/sub-*"))]
    folders += [(path.name, path) for path in sorted(real.glob("cases/*"))]
    for hospital, folder in folders + [(f"phantom {p.parent.name}", p) for p in sorted(phantoms.glob("*/sub-*"))]:
        found = {
            name: next((f for end in ends for f in folder.rglob(f"*{end}.nii.gz") if _is(f, end)), None)
            for name, ends in SUFFIXES.items()
        }
        volumes = {name: load_volume(file) for name, file in found.items() if file}
        reference = next(iter(volumes.values()))
        volumes = {name: resample(volume, reference) for name, volume in volumes.items()}
        beside = folder.parent / "derivatives" / "tumour" / folder.name
        mask = next((f for end in MASKS for f in [*folder.rglob(f"*{end}.nii.gz"), *beside.rglob(f"*{end}.nii.gz")]), None)
        marked = [resample(load_volume(mask), reference, order=0).voxels > 0] if mask else []
        for tumour in [None, *marked] if bare or not marked else marked:
            one = thumbnail(volumes, tumour)
            if one.shows_a_head:
                yield hospital, folder.name, one


def _is(file: Path, end: str) -> bool:
    stem = file.name.removesuffix(".nii.gz")
    return stem == end or (stem.endswith("_" + end) and (end != "T1w" or "ce-" not in stem))


def subsets(seen: Look) -> list[Look]:
    """The patient with every choice of their volumes: sites lack modalities."""
    count = len(seen.names)
    chosen = [list(c) for n in range(1, count + 1) for c in itertools.combinations(range(count), n)]
    return [
        Look(tuple(seen.names[i] for i in c), seen.alone[c], seen.alike[np.ix_(c, c)], seen.against[np.ix_(c, c)], seen.masked)
        for c in chosen
    ]


def scaling(known: list[Example]) -> Weights:
    """Mean and scale of every number over the real patients."""
    real = [one.seen for one in known if one.real]
    pairs = [np.triu_indices(len(seen.names), 1) for seen in real]
    alone = np.concatenate([seen.alone for seen in real])
    alike = np.concatenate([seen.alike[p] for seen, p in zip(real, pairs, strict=True)])
    against = np.concatenate([seen.against[p] for seen, p in zip(real, pairs, strict=True)])
    mean = np.concatenate([alone.mean(0), alike.mean(0)])
    return Weights(mean, np.concatenate([alone.std(0), alike.std(0), np.sqrt((against**2).mean(0))]) + 1e-6, np.zeros(SIZE))


def fit(known: list[Example]) -> Weights:
    """Maximise the likelihood of the true names, less a quadratic penalty."""
    scale = scaling(known)
    groups: dict[int, list[tuple[NDArray[np.float64], int, float]]] = {}
    for one in known:
        parts = subsets(one.seen)
        weight = (1.0 if one.real else PHANTOM) / len(parts) / 2
        for part in parts:
            ways, rows = design(part, scale)
            true = ways.index(tuple(NAMES.index(name) for name in part.names))
            groups.setdefault(len(part.names), []).append((rows, true, weight))
    stacked = [
        (np.stack([r for r, _, _ in g]), np.array([t for _, t, _ in g]), np.array([w for _, _, w in g])) for g in groups.values()
    ]

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total, gradient = PENALTY * weights @ weights, 2 * PENALTY * weights
        for rows, true, weight in stacked:
            scores = rows @ weights
            chances = np.exp(scores - scores.max(1, keepdims=True))
            chances /= chances.sum(1, keepdims=True)
            at = np.arange(len(true)), true
            total -= weight @ np.log(chances[at] + 1e-300)
            chances[at] -= 1
            gradient = gradient + np.einsum("na,nap->p", chances * weight[:, None], rows)
        return float(total), gradient

    found = minimize(loss, np.zeros(SIZE), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return Weights(scale.mean, scale.scale, found)


def judged(namings: Namings, names: tuple[int, ...], masked: bool) -> tuple[str, bool]:
    """What `find_swapped` would say: which doubt, and any."""
    if namings.chance(names) < UNLIKELY[masked]:
        return "kind", True
    if 0 in names and 1 in names and namings.odds_against(names) > ENHANCED:
        return "contrast", True
    return "", False


def measure(known: list[Example]) -> dict[str, object]:
    """By weights that never saw the hospital (nor the person elsewhere): false alarms, and each swap found or not."""
    tables: dict[str, dict[str, Counter[str]]] = {}
    confusion: Counter[str] = Counter()
    alarms = []
    lowest: dict[str, list[float]] = {}
    for hospital in dict.fromkeys(one.hospital for one in known):
        here = [one for one in known if one.hospital == hospital]
        twins = set(SAME_PERSON) if any(one.patient in SAME_PERSON for one in here) else set()
        weights = fit([one for one in known if one.hospital != hospital and one.patient not in twins])
        for one in here:
            names = tuple(NAMES.index(name) for name in one.seen.names)
            namings = name_volumes(one.seen, weights)
            group = f"{'real' if one.real else 'phantom'}, {'mask' if one.mask else 'no mask'}"
            table = tables.setdefault(group, {})
            lowest.setdefault(group, []).append(round(namings.chance(names), 6))
            table.setdefault("untouched", Counter())[judged(namings, names, one.mask)[0] or "silent"] += 1
            if judged(namings, names, one.mask)[1]:
                alarms.append(f"{group}: {one.patient}")
            if one.real and not one.mask:
                best = namings.ways[int(namings.chances.argmax())]
                confusion.update(f"{NAMES[a]} taken for {NAMES[b]}" for a, b in zip(names, best, strict=True))
            for what, wrong in wrong_names(names):
                table.setdefault(what, Counter())["found" if judged(namings, wrong, one.mask)[1] else "missed"] += 1
    least = {group: sorted(chances)[:5] for group, chances in lowest.items()}
    return {
        "tables": tables,
        "least_chances_of_the_true_kinds": least,
        "false_alarms": alarms,
        "best_naming_no_mask": dict(sorted(confusion.items())),
    }


def wrong_names(names: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every two names exchanged, and every name exchanged for one that the patient does not have."""
    for a, b in itertools.combinations(names, 2):
        yield f"{NAMES[a]} and {NAMES[b]} exchanged", tuple(b if n == a else a if n == b else n for n in names)
    for a in names:
        for b in range(len(NAMES)):
            if b not in names and KIND_OF[a] != KIND_OF[b]:
                yield f"{NAMES[a]} named {NAMES[b]}", tuple(b if n == a else n for n in names)


def main() -> None:
    """As the docstring says."""
    what, real, phantoms, out = sys.argv[1], *map(Path, sys.argv[2:])
    known = list(examples(real, phantoms))
    if what == "fit":
        found = fit(known)
        rounded = {name: [round(float(v), 4) for v in getattr(found, name)] for name in ("mean", "scale", "weights")}
        made = "bench/swapped.py fit, on TCGA-LGG (76 patients), three public cases and 22 phantoms"
        out.write_text(json.dumps({"made_by": made, **rounded}) + "\n", encoding="utf-8")
    else:
        out.write_text(json.dumps(measure(known), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
