"""SCAFFOLD against its paper's algorithm 1, on sites whose gradients are known; what is corrected, and what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.errors import ConfigError
from common.models.arrays import Arrays
from common.objectives.term import States
from common.training.round import Losses, Parameters, Point, Step
from common.training.scaffold import Corrected, LastRound, drift

RATE, STEPS = 0.1, 5
SITES = ((1.0, np.array([1.0, 0.0])), (4.0, np.array([-2.0, 1.0])), (0.5, np.array([0.0, 8.0])))  # a, b: loss a |w - b|^2 / 2
OPTIMUM = sum(a * b for a, b in SITES) / sum(a for a, _ in SITES)
HEADS = config_from_table({"training": {"head_rounds": 100}, "federation": {"rounds": 100}})  # one rate throughout


@dataclass(frozen=True)
class Descent:
    """SGD on one site's loss."""

    a: float
    b: np.ndarray[Any, Any]
    steps: int = STEPS

    def begin(self, trained: Parameters) -> Step:
        def step(point: Point) -> tuple[Losses, States]:
            value = point.trained["head.w"]
            with torch.no_grad():
                value.sub_(RATE * self.a * (value - torch.tensor(self.b, dtype=torch.float32)))
            return {}, point.states

        del trained
        return step

    def metrics(self, history: Sequence[Losses]) -> dict[str, float]:
        return {}


def one_site(rule: Descent, arrays: Arrays, correction: Arrays) -> Arrays:
    """What the site sends."""
    trained = {"head.w": torch.tensor(arrays["head.w"])}
    corrected = Corrected(rule, {name: torch.tensor(array) for name, array in correction.items()})
    take = corrected.begin(trained)
    for step in range(corrected.steps):
        take(Point(step, 0.0, 0.0, (), trained, {}, {}, {}, {}))
    return {"head.w": trained["head.w"].numpy() - arrays["head.w"]}


def ours(rounds: int, *, correct: bool = True) -> list[Arrays]:
    """The global arrays after each round."""
    arrays: Arrays = {"head.w": np.array([3.0, -3.0], np.float32)}
    memories: dict[int, LastRound] = {}
    found = []
    for number in range(1, rounds + 1):
        sent = []
        for index, (a, b) in enumerate(SITES):
            known = memories.get(index) if correct else None
            own = one_site(Descent(a, b), arrays, drift(known, arrays, HEADS, number) if known else {})
            memories[index] = LastRound(arrays, own)
            sent.append(own["head.w"])
        arrays = {"head.w": (arrays["head.w"] + np.mean(sent, axis=0)).astype(np.float32)}
        found.append(arrays)
    return found


def papers(rounds: int) -> list[np.ndarray[Any, Any]]:
    """Algorithm 1 with option II, all sites in every round, global step 1."""
    x, c = np.array([3.0, -3.0]), np.zeros(2)
    own = [np.zeros(2) for _ in SITES]
    found = []
    for _ in range(rounds):
        moves, changes = [], []
        for i, (a, b) in enumerate(SITES):
            y = x.copy()
            for _ in range(STEPS):
                y = y - RATE * (a * (y - b) - own[i] + c)
            after = own[i] - c + (x - y) / (STEPS * RATE)
            moves.append(y - x)
            changes.append(after - own[i])
            own[i] = after
        x, c = x + np.mean(moves, axis=0), c + np.mean(changes, axis=0)
        found.append(x)
    return found


def test_with_sgd_it_is_the_papers_algorithm() -> None:
    for mine, known in zip(ours(8), papers(8), strict=True):
        np.testing.assert_allclose(mine["head.w"], known, rtol=0, atol=1e-5)


def test_it_ends_where_all_sites_together_would_and_fedavg_does_not() -> None:
    np.testing.assert_allclose(ours(60)[-1]["head.w"], OPTIMUM, atol=1e-4)
    assert np.abs(ours(60, correct=False)[-1]["head.w"] - OPTIMUM).max() > 0.3


def test_without_steps_there_is_nothing_to_correct() -> None:
    start: Arrays = {"head.w": np.ones(2, np.float32)}
    sent = one_site(Descent(1.0, np.zeros(2), steps=0), start, {"head.w": np.full(2, 9, np.float32)})
    assert not sent["head.w"].any()


def arrays_of(value: float) -> Arrays:
    return {name: np.full(2, value, np.float32) for name in ("blocks.0.lora_a", "blocks.0.lora_b", "head.w")}


def tuned(**adapter: str) -> RunConfig:
    return config_from_table(
        {
            "model": {"adapter": adapter},
            "training": {"head_rounds": 2, "warmup_rounds": 2},
            "federation": {"rounds": 4},
        }
    )


def test_what_only_one_of_two_rounds_trains_is_not_corrected() -> None:
    last = LastRound(arrays_of(1.0), arrays_of(0.5))
    assert sorted(drift(last, arrays_of(3.0), tuned(), 2)) == ["head.w"]
    assert drift(last, arrays_of(3.0), tuned(), 3) == {}  # a tuning round after a head round
    assert sorted(drift(last, arrays_of(3.0), tuned(factor="b"), 4)) == ["blocks.0.lora_b", "head.w"]


def test_the_correction_is_all_sites_step_less_ones_own_at_the_rounds_rate() -> None:
    last = LastRound(arrays_of(1.0), arrays_of(0.5))
    np.testing.assert_allclose(drift(last, arrays_of(3.0), tuned(), 2)["head.w"], 2.0 - 0.5)
    config = config_from_table({"training": {"warmup_rounds": 4}, "federation": {"rounds": 8}})
    # The rate rises from 0 to the end of round 4: in the middle of rounds 1, 2 and 3 it is 1/8, 3/8 and 5/8 of the largest.
    np.testing.assert_allclose(drift(last, arrays_of(3.0), config, 2)["head.w"], (2.0 - 0.5) * 3)
    np.testing.assert_allclose(drift(last, arrays_of(3.0), config, 3)["head.w"], (2.0 - 0.5) * 5 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"site_level": {"enabled": True}}, r"site_level\.enabled"),
        ({"model": {"adapter": {"factor": "alternate"}}}, r"factor = \"alternate\""),
        (
            {
                "privacy": {"enabled": True},
                "objective": {"local_crops": 0, "terms": {name: {"weight": 0.0} for name in ("dino", "ibot", "koleo")}},
            },
            r"privacy\.enabled: private steps are not corrected",
        ),
    ],
)
def test_where_a_step_cannot_be_corrected_it_is_refused_by_name(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=rf'"scaffold" cannot run with .*{says}'):
        config_from_table(table | {"federation": {"strategy": "scaffold"}})
    config_from_table(table)
    config_from_table({"secure": {"enabled": True}, "federation": {"strategy": "scaffold"}})
