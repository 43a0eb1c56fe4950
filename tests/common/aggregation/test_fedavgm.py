"""FedAvgM against the two lines of its paper, written out, and against Flower's own."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvgM as FlowersFedAvgM
from flwr.supercore.task_identity import TaskIdentity

from common.aggregation.aggregator import Arrays
from common.aggregation.fedavg import FedAvg
from common.aggregation.fedavgm import FedAvgM

SHAPES = {"a": (3, 2), "b": (5,)}
WEIGHTS = (10.0, 3.0, 7.0)
SETTINGS = [(0.9, 1.0), (0.5, 0.3), (0.0, 1.0), (0.0, 2.0)]


def some(seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def changes(number: int) -> list[Arrays]:
    return [some(100 * number + site) for site in range(len(WEIGHTS))]


def rounds(aggregator: FedAvgM | FedAvg, count: int = 4) -> list[Arrays]:
    """The global arrays after each round."""
    arrays = some(7)
    state, found = aggregator.init(arrays), []
    for number in range(1, count + 1):
        arrays, state = aggregator.apply(state, arrays, zip(changes(number), WEIGHTS, strict=True))
        found.append(arrays)
    return found


@pytest.mark.parametrize(("momentum", "rate"), SETTINGS)
def test_it_is_its_papers_two_lines(momentum: float, rate: float) -> None:
    w = {name: array.astype(np.float64) for name, array in some(7).items()}
    v = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for number, found in enumerate(rounds(FedAvgM(momentum, rate)), start=1):
        for name, shape in SHAPES.items():
            mean = np.zeros(shape)
            for change, weight in zip(changes(number), WEIGHTS, strict=True):
                mean += weight * change[name] / sum(WEIGHTS)
            v[name] = momentum * v[name] + mean
            w[name] = w[name] + rate * v[name]
            np.testing.assert_allclose(found[name], w[name], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("momentum", "rate"), SETTINGS)
def test_it_is_flowers_own(momentum: float, rate: float, monkeypatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 7)
    flowers, current = FlowersFedAvgM(server_momentum=momentum, server_learning_rate=rate), some(7)
    flowers.current_arrays = record(current)
    for number, found in enumerate(rounds(FedAvgM(momentum, rate)), start=1):
        trained = [{name: current[name] + change[name] for name in current} for change in changes(number)]
        arrays, _ = flowers.aggregate_train(number, [reply(t, w) for t, w in zip(trained, WEIGHTS, strict=True)])
        assert arrays is not None
        current = {name: array.numpy().astype(np.float32) for name, array in arrays.items()}
        for name in SHAPES:
            np.testing.assert_allclose(found[name], current[name], rtol=0, atol=5e-6)


def record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def reply(arrays: Arrays, weight: float) -> Message:
    content = RecordDict({"arrays": record(arrays), "metrics": MetricRecord({"num-examples": int(weight)})})
    return Message(content, dst_node_id=1, message_type="train")


def test_without_momentum_it_is_fedavg() -> None:
    for one, other in zip(rounds(FedAvgM(0.0, 1.0)), rounds(FedAvg()), strict=True):
        for name in SHAPES:
            np.testing.assert_allclose(one[name], other[name], rtol=0, atol=3e-7)


def test_what_goes_in_is_not_changed() -> None:
    aggregator, arrays = FedAvgM(), some(7)
    state = {name: array + 1 for name, array in aggregator.init(arrays).items()}
    aggregator.apply(state, arrays, zip(changes(1), WEIGHTS, strict=True))
    assert all(np.array_equal(array, some(7)[name]) for name, array in arrays.items())
    assert all((velocity == 1).all() for velocity in state.values())


def test_an_array_that_a_round_does_not_train_stays_and_its_velocity_waits() -> None:
    """The factor of LoRA that is held still must stay still, or the mean of the factors is another matrix."""
    aggregator, arrays = FedAvgM(0.9), some(7)
    arrays, state = aggregator.apply(aggregator.init(arrays), arrays, zip(changes(1), WEIGHTS, strict=True))
    half = [change | {"b": np.zeros(5, np.float32)} for change in changes(2)]
    after, kept = aggregator.apply(state, arrays, zip(half, WEIGHTS, strict=True))
    assert after["b"].tobytes() == arrays["b"].tobytes()
    assert kept["b"].tobytes() == state["b"].tobytes()
    assert not np.array_equal(after["a"], arrays["a"])
    assert {array.dtype for array in (*after.values(), *kept.values())} == {np.dtype(np.float32)}
