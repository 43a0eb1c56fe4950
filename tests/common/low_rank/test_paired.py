"""Pairs by their rule, all else by the strategy; what a configuration may name; the figures of a round's record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from common.aggregation.aggregator import Arrays, Change, State
from common.aggregation.fedavg import FedAvg
from common.aggregation.fedavgm import FedAvgM
from common.aggregation.registry import AGGREGATORS
from common.config.run import RunConfig, config_from_json, config_from_table
from common.errors import ConfigError
from common.low_rank.apart import Apart
from common.low_rank.fair import Fair
from common.low_rank.figures import pair_figures
from common.low_rank.pair_rule import Pair, PairRule, Sites, mean
from common.low_rank.paired import Paired
from common.low_rank.registry import PAIR_RULES
from common.low_rank.residual import Residual
from common.low_rank.svd import Svd
from common.schema import ranged

WEIGHTS = (10.0, 4.0, 6.0)
MAPS = {"vit.0.qkv": (9, 5), "vit.1.fc1": (6, 8)}
RULES = [Fair(), Residual(kept_rank=6), Svd()]


def some(seed: int, residual: int = 0, size: float = 1.0) -> Arrays:
    """A head, and two maps with pairs of rank 2."""
    generator = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"head.weight": (4, 3), "vit.norm.lora_a": (3,)}
    for name, (outputs, inputs) in MAPS.items():
        shapes |= {f"{name}.lora_b": (outputs, 2), f"{name}.lora_a": (2, inputs)}
    found = {name: size * generator.normal(size=shape) for name, shape in shapes.items()}
    for name, (outputs, inputs) in MAPS.items() if residual else ():
        found |= {f"{name}.residual_b": np.zeros((outputs, residual)), f"{name}.residual_a": np.zeros((residual, inputs))}
    return {name: found[name].astype(np.float32) for name in sorted(found)}


def changes(seed: int = 1, size: float = 0.3) -> list[tuple[Change, float]]:
    return [(some(seed + i, size=size), weight) for i, weight in enumerate(WEIGHTS)]


def after(rule: PairRule, current: Arrays, sent: Sequence[tuple[Change, float]]) -> Arrays:
    arrays, _ = Paired(FedAvg(), rule).apply({}, current, iter(sent))
    return arrays


def products(arrays: Any, map_: str) -> np.ndarray:
    pair = arrays[f"{map_}.lora_b"].astype(np.float64) @ arrays[f"{map_}.lora_a"].astype(np.float64)
    if f"{map_}.residual_b" in arrays:
        pair = pair + arrays[f"{map_}.residual_b"].astype(np.float64) @ arrays[f"{map_}.residual_a"].astype(np.float64)
    return np.asarray(pair)


def naive(current: Arrays, sent: Sequence[tuple[Change, float]], map_: str) -> np.ndarray:
    """The mean of the sites' products."""
    trained = [{n: current[n].astype(np.float64) + change[n] for n in change} for change, _ in sent]
    return np.average([products(site, map_) for site in trained], axis=0, weights=WEIGHTS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_all_but_the_pairs_takes_the_strategy_byte_for_byte(rule: PairRule) -> None:
    strategy, current = FedAvgM(0.5), some(0, rule.residual_rank)
    both, alone, paired = current, some(0), Paired(strategy, rule)
    state, own = paired.init(current), strategy.init(alone)
    assert set(state) == {"head.weight", "vit.norm.lora_a"}  # no map of that name has a lora_b: it is no pair
    for number in range(3):
        both, state = paired.apply(state, both, iter(changes(number)))
        alone, own = strategy.apply(own, alone, iter(changes(number)))
        for name in state:
            assert both[name].tobytes() == alone[name].tobytes()
            assert state[name].tobytes() == own[name].tobytes()
    assert list(both) == list(current)
    assert {array.dtype for array in both.values()} == {np.dtype(np.float32)}
    assert {name: array.shape for name, array in both.items()} == {name: array.shape for name, array in current.items()}


def test_the_residual_makes_the_mean_exact_over_rounds_and_nothing_else_does() -> None:
    for rule in (Residual(kept_rank=8), *RULES[::2]):
        current = some(0, rule.residual_rank)
        errors = []
        for number in range(3):
            sent, before = changes(10 * number), current
            current = after(rule, current, sent)
            for map_ in MAPS:
                held = products(before, map_) - before[f"{map_}.lora_b"].astype(np.float64) @ before[f"{map_}.lora_a"]
                errors.append(np.abs(products(current, map_) - naive(before, sent, map_) - held).max())
        assert (max(errors) < 1e-5) == (rule.name == "residual")
        assert max(errors) > 1e-2 or rule.name == "residual"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_pair_that_no_site_has_moved_keeps_its_bits(rule: PairRule) -> None:
    """As in head rounds: were it made anew, LoRA's start would be gone before it has begun."""
    current = some(0, rule.residual_rank)
    still = [({n: np.zeros_like(a) if n.startswith("vit.0") else a for n, a in change.items()}, w) for change, w in changes()]
    found = after(rule, current, still)
    assert {n for n in current if found[n].tobytes() == current[n].tobytes()} == {n for n in current if n.startswith("vit.0")}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_figures_are_dense_distances(rule: PairRule) -> None:
    current = some(0, rule.residual_rank)
    first = changes(5)
    current = after(rule, current, first)  # so that a residual is not empty
    sent = changes()
    new = after(rule, current, sent)
    found = pair_figures(current, sent, new)
    size = apart = left = 0.0
    for map_ in MAPS:
        wanted = naive(current, sent, map_)
        b, a = (sum(w * (current[f"{map_}.{p}"] + c[f"{map_}.{p}"]) for c, w in sent) / 20 for p in ("lora_b", "lora_a"))
        before = products(current, map_) - current[f"{map_}.lora_b"].astype(np.float64) @ current[f"{map_}.lora_a"]
        size += float((wanted**2).sum())
        apart += float(((wanted - np.asarray(b) @ np.asarray(a)) ** 2).sum())
        left += float(((products(new, map_) - before - wanted) ** 2).sum())
    np.testing.assert_allclose(found["deviation"], np.sqrt(apart / size), rtol=1e-5)
    np.testing.assert_allclose(found["left"], np.sqrt(left / size), rtol=1e-4, atol=1e-7)
    assert found["left"] < 0.95 * found["deviation"]


def test_figures_of_a_round_without_pairs_are_none() -> None:
    current = some(0)
    still = [({n: np.zeros_like(a) for n, a in change.items()}, weight) for change, weight in changes()]
    assert pair_figures(current, still, current) == {}
    assert pair_figures({"head.weight": current["head.weight"]}, changes(), current) == {}


def run(**sections: Any) -> RunConfig:
    return config_from_table(sections)


def test_a_configuration_names_its_rule_with_or_without_settings() -> None:
    assert run().federation.low_rank == Apart()
    assert run(federation={"low_rank": "svd"}).federation.low_rank == Svd()
    config = run(federation={"low_rank": {"name": "residual", "kept_rank": 16}, "strategy": "fedavgm"})
    assert config.federation.aggregator == Paired(FedAvgM(), Residual(16))
    assert config_from_json(config.to_json()) == config


def test_by_default_the_strategy_is_the_aggregator() -> None:
    assert run().federation.aggregator == FedAvg()


@dataclass(frozen=True)
class Picky(FedAvg):
    """A strategy that judges single sites."""

    name: ClassVar[str] = "picky"
    from_sum: ClassVar[bool] = False

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"secure": {"enabled": True}}, r'low_rank = "fair" cannot run with secure\.enabled: it needs the change of each site'),
        ({"site_level": {"enabled": True}}, r'low_rank = "fair" cannot run with site_level\.enabled'),
        ({"model": {"adapter": "dora"}}, r'low_rank = "fair" cannot run with model\.adapter = "dora", whose map is not'),
        ({"model": {"adapter": "bitfit"}}, r'low_rank = "fair" cannot run with model\.adapter = "bitfit"'),
        ({"model": {"adapter": {"factor": "b"}}}, r'low_rank = "fair" cannot run with a model\.adapter\.factor .*exact already'),
        ({"federation": {"strategy": "picky"}}, r'cannot run with federation\.strategy = "picky", which judges single sites'),
    ],
)
def test_what_a_rule_cannot_run_with_is_refused_by_name(sections: Any, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AGGREGATORS, "picky", Picky)
    federation = sections.get("federation", {})
    with pytest.raises(ConfigError, match=says):
        run(**sections | {"federation": {"low_rank": "fair", **federation}})
    run(**sections | {"federation": federation} if "secure" not in sections else sections)  # apart, everything can


@dataclass(frozen=True)
class Louder(PairRule):
    """A rule of this file's own."""

    name: ClassVar[str] = "louder"
    by: float = ranged(2.0, 0.0, 10.0)

    def apply(self, current: Pair, sites: Sites) -> Pair:
        b, a = mean(sites)
        return Pair(self.by * b, a, current.residual)


def test_a_rule_of_ones_own_is_one_class_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAIR_RULES, "louder", Louder)
    config = run(federation={"low_rank": {"name": "louder", "by": 3.0}})
    assert config_from_json(config.to_json()) == config
    sent, current = changes(), some(0)
    found, _ = config.federation.aggregator.apply({}, current, iter(sent))
    apart, _ = FedAvg().apply({}, current, iter(sent))
    np.testing.assert_allclose(found["vit.0.qkv.lora_b"], 3 * apart["vit.0.qkv.lora_b"], rtol=1e-5)
    np.testing.assert_allclose(found["head.weight"], apart["head.weight"])
