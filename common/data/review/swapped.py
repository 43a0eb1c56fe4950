"""Modalities that were mixed up: the names that a patient's volumes most likely bear, by what the images look like.

A conditional logit over all ways to give the volumes names (McFadden, 1974): the score of a way is linear in the numbers of
`look`, and its probability is the softmax over the ways. `swapped.json` holds the weights; `bench/swapped.py` made them, and
measures them with every hospital left out in turn. T1 and contrast T1 are told apart by what enhances alone; where nothing does,
nobody can.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import permutations
from math import log

import numpy as np
from numpy.typing import NDArray

from common.data.gate.finding import Finding, Kind, Level
from common.data.review.look import AGAINST, ALIKE, ALONE, Look, Numbers

SWAPPED = Kind("modality-swapped", Level.WARNING, "an image looks like another modality than its name says")
KINDS = (SWAPPED,)

NAMES = ("t1", "t1c", "t2", "flair")  # that can be told
PAIRS = tuple((a, b) for a in range(len(NAMES)) for b in range(a + 1, len(NAMES)))
KIND_OF = (0, 0, 1, 2)  # of each name: with or without contrast, T1 is T1 by its tissues
LIMIT = 3.0  # standard deviations that a number may lie off the mean
UNLIKELY = {True: 0.002, False: 0.0005}  # with and without a mask: probability of the names' kinds below which they are doubted
ENHANCED = 4.0  # log odds from which T1 and contrast T1 are doubted
SURE = 0.5  # of another kind for one volume, to be named
ALONE_SIZE, PAIR_SIZE = ALONE + 1, ALIKE + 1 + AGAINST
SIZE = len(NAMES) * ALONE_SIZE + len(PAIRS) * PAIR_SIZE


@dataclass(frozen=True, eq=False)
class Weights:
    """What was fitted: numbers are taken from `mean` in units of `scale`."""

    mean: Numbers  # [ALONE + ALIKE]; of AGAINST it is 0, by symmetry
    scale: Numbers  # [ALONE + ALIKE + AGAINST]
    weights: Numbers  # [SIZE]


@dataclass(frozen=True, eq=False)
class Namings:
    """All ways to name some volumes, and how likely each is."""

    ways: tuple[tuple[int, ...], ...]  # for each volume the index in NAMES
    chances: NDArray[np.float64]  # of each way; they add up to 1

    def chance(self, names: Sequence[int]) -> float:
        """That the volumes are of these kinds, T1 with or without contrast."""
        kinds = [KIND_OF[name] for name in names]
        same = [[KIND_OF[name] for name in way] == kinds for way in self.ways]
        return float(self.chances[same].sum())

    def kind(self, volume: int) -> tuple[int, float]:
        """The likeliest kind of one volume, and how likely it is."""
        chances = np.zeros(max(KIND_OF) + 1)
        np.add.at(chances, [KIND_OF[way[volume]] for way in self.ways], self.chances)
        return int(chances.argmax()), float(chances.max())

    def odds_against(self, names: tuple[int, ...]) -> float:
        """Log odds that T1 and contrast T1, both of which are there, are each other."""
        other = tuple({0: 1, 1: 0}.get(name, name) for name in names)
        chances = self.chances[self.ways.index(other)], self.chances[self.ways.index(names)]
        return log(max(float(chances[0]), 1e-300)) - log(max(float(chances[1]), 1e-300))


def find_swapped(seen: Look) -> Iterator[tuple[str, Finding]]:
    """Modality and warning of each volume that looks like another one. All volumes must be of `NAMES`."""
    names = tuple(NAMES.index(name) for name in seen.names)
    namings = name_volumes(seen, shipped_weights())
    named = namings.chance(names)
    if named < UNLIKELY[seen.masked]:
        for volume, name in enumerate(names):
            kind, chance = namings.kind(volume)
            if kind != KIND_OF[name] and chance >= SURE:
                yield NAMES[name], _finding(name, kind, 1 - named)
    elif 0 in names and 1 in names and (odds := namings.odds_against(names)) > ENHANCED:
        for name in (0, 1):
            yield NAMES[name], _finding(name, None, 1 / (1 + np.exp(-odds)))


def name_volumes(seen: Look, weights: Weights) -> Namings:
    """How likely each way to name the volumes is."""
    ways, rows = design(seen, weights)
    scores = rows @ weights.weights
    chances = np.exp(scores - scores.max())
    return Namings(ways, chances / chances.sum())


def design(seen: Look, scaling: Weights) -> tuple[tuple[tuple[int, ...], ...], Numbers]:
    """All ways to name the volumes, and for each the numbers [ways, SIZE] that the weights are multiplied with."""
    alone = _scaled(seen.alone, scaling.mean[:ALONE], scaling.scale[:ALONE])
    alike = _scaled(seen.alike, scaling.mean[ALONE:], scaling.scale[ALONE : ALONE + ALIKE])
    against = _scaled(seen.against, np.zeros(AGAINST), scaling.scale[ALONE + ALIKE :])
    count = len(seen.names)
    ways = tuple(permutations(range(len(NAMES)), count))
    rows = np.zeros((len(ways), SIZE))
    for row, way in zip(rows, ways, strict=True):
        for i, name in enumerate(way):
            row[name * ALONE_SIZE : (name + 1) * ALONE_SIZE] = [*alone[i], 1.0]
        for i in range(count):
            for j in range(count):
                if way[i] < way[j]:
                    start = len(NAMES) * ALONE_SIZE + PAIRS.index((way[i], way[j])) * PAIR_SIZE
                    row[start : start + PAIR_SIZE] = [*alike[i, j], 1.0, *against[i, j]]
    return ways, rows


@cache
def shipped_weights() -> Weights:
    """Those of `swapped.json`."""
    table = json.loads(files(__package__).joinpath("swapped.json").read_text(encoding="utf-8"))
    return Weights(*(np.array(table[name]) for name in ("mean", "scale", "weights")))


def _scaled(numbers: Numbers, mean: Numbers, scale: Numbers) -> Numbers:
    scaled: Numbers = np.clip((numbers - mean) / scale, -LIMIT, LIMIT)
    return scaled


def _finding(name: int, kind: int | None, confidence: float) -> Finding:
    looks = {0: "T1, with or without contrast", 1: "T2", 2: "FLAIR", None: ("contrast T1", "T1 without contrast")[name % 2]}[kind]
    chance = f"{min(confidence, 0.999):.1%} that it is not what its name says, if it is one of the four at all"
    found = f"named {NAMES[name]}, and looks like {looks} ({chance})"
    return SWAPPED.finding(found, f"an image that looks like {NAMES[name]}", "Look at it; rename the files if they are mixed up.")
