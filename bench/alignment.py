"""How surely `check` tells that a patient's modalities, or the mask, do not lie on each other: found, and wrongly said.

    PYTHONPATH=. python bench/alignment.py REAL PHANTOMS bench/alignment.json

Folders as in `bench/swapped.py`. The last modality of each patient is spoilt on the thumbnail that `check` looks at. The rule's
limits are compared with what the other hospitals' patients alone would have given: their worst value and a fixed step beyond it.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from swapped import thumbnails

from common.data.review.alignment import WAYS, edges_of, find_mirrored_mask, find_misfits, fit
from common.data.review.thumbnail import Thumbnail
from common.data.volumes import Array

Spoil = Callable[[Array, np.random.Generator], Array]
STEPS = {"mirrored": 0.04, "gain": 0.04, "shift": 5.0, "agreement": 0.1, "inner": 0.1}  # beyond the worst of the other hospitals


def spoils(pixel: tuple[float, float]) -> dict[str, Spoil]:
    """Ways to spoil slices [X, Y, S]."""
    mirrored = {name: _mirror(name) for name in WAYS}
    return {
        **mirrored,
        "shifted by 15 mm": lambda s, g: _shift(s, 15, pixel, g),
        "shifted by 8 mm": lambda s, g: _shift(s, 8, pixel, g),
        "slices in any order": lambda s, g: s[:, :, g.permutation(s.shape[2])],
        "slices interleaved": lambda s, _: s[:, :, np.r_[0 : s.shape[2] : 2, 1 : s.shape[2] : 2]],
        "two slices exchanged": lambda s, g: s[:, :, _exchanged(s.shape[2], g)],
        "one slice lost": lambda s, _: s[:, :, np.r_[0 : s.shape[2] // 2, s.shape[2] // 2 + 1 : s.shape[2], s.shape[2] - 1]],
        "noise": lambda s, g: np.where(s > 0, g.uniform(0, 1000, s.shape), 0).astype(np.float32),
    }


def _mirror(name: str) -> Spoil:
    s, x, y = WAYS[name]
    return lambda slices, _: slices[x, y, s]


def _shift(slices: Array, mm: float, pixel: tuple[float, float], generator: np.random.Generator) -> Array:
    angle = generator.uniform(0, 2 * np.pi)
    steps = round(mm * np.cos(angle) / pixel[0]), round(mm * np.sin(angle) / pixel[1])
    moved: Array = np.roll(slices, steps, (0, 1))
    return moved


def _exchanged(count: int, generator: np.random.Generator) -> np.ndarray:
    order = np.arange(count)
    i, j = generator.choice(count, 2, replace=False)
    order[[i, j]] = j, i
    return order


def worst(one: Thumbnail) -> dict[str, float]:
    """A clean patient's largest values towards each finding."""
    edges = {name: edges_of(slices, one) for name, slices in one.slices.items()}
    fits = [fit(edges[a], edges[b], one) for a, b in combinations(edges, 2)]
    return {
        "mirrored": max((f.mirrored - f.agreement for f in fits), default=-1.0),
        "gain": max((f.gain for f in fits), default=0.0),
        "shift": max((f.shift for f in fits), default=0.0),
        "agreement": max((-f.agreement for f in fits), default=-1.0),
        "inner": max((-f.inner for f in fits), default=-1.0),
    }


def strangers(known: list[tuple[str, str, Thumbnail]]) -> Iterator[Thumbnail]:
    """Each patient with the last modality of the next one whose slices have the same shape."""
    for number, (_, _, one) in enumerate(known):
        name = tuple(one.slices)[-1]
        shape = one.slices[name].shape
        for _, _, other in known[number + 1 :] + known[:number]:
            if len(one.slices) > 1 and name in other.slices and other.slices[name].shape == shape:
                yield replace(one, slices={**one.slices, name: other.slices[name]})
                break


def main() -> None:
    """Print, and write as JSON."""
    real, phantoms, out = (Path(word) for word in sys.argv[1:4])
    known = list(thumbnails(real, phantoms, bare=False))
    generator, table = np.random.default_rng(0), dict[str, Counter[str]]()

    def note(what: str, one: Thumbnail) -> None:
        found = next((finding.code for _, finding in find_misfits(one)), "silent")
        table.setdefault(what, Counter())[found] += 1

    alarms = []
    for hospital, patient, one in known:
        said = [finding.code for _, finding in find_misfits(one)] + [m.code for m in [find_mirrored_mask(one)] if m]
        alarms += [f"{hospital} {patient}: {code}" for code in said]
        if len(one.slices) > 1:
            name = tuple(one.slices)[-1]
            for what, spoil in spoils(one.pixel).items():
                note(what, replace(one, slices={**one.slices, name: spoil(one.slices[name], generator)}))
        tumour = one.tumour
        if tumour is not None:
            for what in WAYS:
                mirrored = find_mirrored_mask(replace(one, tumour=_mirror(what)(tumour, generator)))
                table.setdefault(f"mask {what}", Counter())["mask-mirrored" if mirrored else "silent"] += 1
    for one in strangers(known):
        note("of another patient", one)
    values = [(hospital, worst(one)) for hospital, _, one in known]
    left_out = {
        what: sum(v[what] > max(w[what] for other, w in values if other != hospital) + step for hospital, v in values)
        for what, step in STEPS.items()
    }
    highest = {what: round(max(v[what] for _, v in values), 3) for what in STEPS}
    result = {
        "patients": len(known),
        "false alarms": alarms,
        "false alarms, limits of the other hospitals": left_out,
        "worst of clean": highest,
        "found": {what: dict(counts) for what, counts in table.items()},
    }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
