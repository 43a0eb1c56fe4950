"""Pairs by name among a model's arrays: `MAP.lora_b` and `MAP.lora_a`, and beside them `MAP.residual_b` and `MAP.residual_a`."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.adapters.adapter import PAIR, RESIDUAL
from common.aggregation.aggregator import Arrays, Change
from common.low_rank.factors import Factors
from common.low_rank.pair_rule import Pair, Sites

Weighted = Iterable[tuple[Change, float]]  # of each site; gone through more than once


def maps(names: Iterable[str]) -> list[str]:
    """The maps that have a pair, sorted."""
    known = set(names)
    b, a = PAIR
    found = (name.removesuffix(f".{b}") for name in known if name.endswith(f".{b}"))
    return sorted(map_ for map_ in found if f"{map_}.{a}" in known)


def pair_arrays(names: Iterable[str]) -> set[str]:
    """The names of all arrays of pairs, residuals among them."""
    known = set(names)
    return {f"{map_}.{part}" for map_ in maps(known) for part in (*PAIR, *RESIDUAL)} & known


def has_moved(map_: str, changes: Weighted) -> bool:
    """Whether any site has changed the pair. In head rounds none does."""
    return any(change[f"{map_}.{part}"].any() for change, _ in changes for part in PAIR)


def read_pair(map_: str, arrays: Mapping[str, NDArray[Any]]) -> Pair:
    """The pair of a map."""
    b, a = (arrays[f"{map_}.{part}"].astype(np.float64) for part in PAIR)
    if f"{map_}.{RESIDUAL[0]}" not in arrays:
        return Pair(b, a, Factors(np.zeros((len(b), 0)), np.zeros((0, a.shape[1]))))
    left, right = (arrays[f"{map_}.{part}"].astype(np.float64) for part in RESIDUAL)
    return Pair(b, a, Factors(left, right))


def read_sites(map_: str, current: Arrays, changes: Weighted) -> Sites:
    """Each site's pair as it has trained it, and its share."""
    total = sum(weight for _, weight in changes)
    b, a = (f"{map_}.{part}" for part in PAIR)
    return [
        (Factors(current[b].astype(np.float64) + change[b], current[a].astype(np.float64) + change[a]), weight / total)
        for change, weight in changes
    ]


def write_pair(map_: str, pair: Pair, like: Arrays) -> Arrays:
    """The pair's arrays by name, of those that `like` has."""
    values = dict(zip((*PAIR, *RESIDUAL), (pair.b, pair.a, *pair.residual), strict=True))
    named = {f"{map_}.{part}": value.astype(np.float32) for part, value in values.items()}
    return {name: value for name, value in named.items() if name in like}
