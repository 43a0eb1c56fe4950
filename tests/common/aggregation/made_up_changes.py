"""Changes that sites might send, and the same as replies to Flower's own strategies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from common.aggregation.aggregator import Aggregator, Arrays

SHAPES = {"a": (3, 2), "b": (5,), "c": ()}


def some(seed: int, scale: float = 1.0) -> Arrays:
    generator = np.random.default_rng(seed)
    return {name: np.asarray(generator.normal(0, scale, shape), np.float32) for name, shape in SHAPES.items()}


def whole(seed: int) -> Arrays:
    """Whole numbers, with which float32 makes no rounding error: ties are ties in whatever order they are summed."""
    generator = np.random.default_rng(seed)
    return {name: np.asarray(generator.integers(-500, 501, shape), np.float32) for name, shape in SHAPES.items()}


def numbers(*values: float) -> list[tuple[Arrays, float]]:
    """Changes of one value each, and weights that no robust rule may read."""
    return [({"w": np.array([value], np.float32)}, 10.0**i) for i, value in enumerate(values)]


def one_round(strategy: Aggregator, changes: Sequence[tuple[Arrays, float]]) -> Arrays:
    """From global arrays of zero: what comes is what they moved by."""
    zero = {name: np.zeros_like(array) for name, array in changes[0][0].items()}
    return strategy.apply(strategy.init(zero), zero, iter(changes))[0]


def record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def replies(current: Arrays, changes: Sequence[tuple[Arrays, float]]) -> list[Message]:
    """Flower's sites send whole arrays."""
    return [reply({name: np.asarray(current[name] + change[name]) for name in current}, weight) for change, weight in changes]


def reply(arrays: Arrays, weight: float) -> Message:
    content = RecordDict({"arrays": record(arrays), "metrics": MetricRecord({"num-examples": int(weight)})})
    return Message(content, dst_node_id=1, message_type="train")


def of_flowers(strategy: Any, number: int, current: Arrays, changes: Sequence[tuple[Arrays, float]]) -> Arrays:
    """The next global arrays by one of Flower's strategies."""
    arrays, _ = strategy.aggregate_train(number, replies(current, changes))
    assert arrays is not None
    return {name: array.numpy() for name, array in arrays.items()}
