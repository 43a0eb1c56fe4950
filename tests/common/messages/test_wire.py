"""Changes in fewer bits: against torch's bfloat16 and a naive rounding; what is lost comes back; hostile arrays are refused."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from common.errors import FederationError
from common.messages.round import SiteReply, pack_arrays, read_reply, record_bytes, unpack_arrays, write_reply
from common.messages.update import Update
from common.messages.wire import WIRES, with_feedback
from common.models.arrays import Arrays

INT8, BF16 = WIRES["int8"], WIRES["bf16"]


def change(seed: int = 0, scale: float = 1e-3) -> Arrays:
    generator = np.random.default_rng(seed)
    shapes = {"a": (7, 5), "b": (300,), "still": (4, 4)}
    drawn = {name: (scale * generator.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    return drawn | {"still": np.zeros((4, 4), np.float32)}


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 3e37])
def test_bf16_is_torchs(scale: float) -> None:
    values = (scale * np.random.default_rng(1).standard_normal(10_000)).astype(np.float32)
    values = np.concatenate([values, np.array([0.0, -0.0, 1.0, 1.00390625, 1.01171875], np.float32)])  # ties go to even
    np.testing.assert_array_equal(BF16.rounded(values), torch.from_numpy(values).bfloat16().float().numpy())


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 127.0, 1e30])
def test_int8_is_the_nearest_multiple_of_the_smallest_power_that_reaches(scale: float) -> None:
    values = (scale * np.random.default_rng(2).standard_normal((40, 9))).astype(np.float32)
    power = min(p for p in range(-150, 130) if float(np.abs(values).max()) <= 127 * 2.0**p)
    naive = [max(-127, min(127, round(float(value) / 2.0**power))) * 2.0**power for value in values.ravel()]
    np.testing.assert_array_equal(INT8.rounded(values).ravel(), np.array(naive, np.float32))
    assert np.abs(INT8.rounded(values) - values).max() <= 2.0**power / 2


@pytest.mark.parametrize("wire", [INT8, BF16], ids=["int8", "bf16"])
def test_rounding_again_changes_nothing_and_zero_stays(wire) -> None:
    for seed in range(50):
        once = wire.rounded(change(seed, 10.0 ** (seed % 9 - 5))["a"])
        np.testing.assert_array_equal(wire.rounded(once), once)
    assert not wire.rounded(np.zeros((3, 2), np.float32)).any()
    edge = np.array([127.0, -1.0], np.float32), np.array([64.0, 1.0], np.float32), np.array([63.5, 1.0], np.float32)
    for values in edge:
        once = wire.rounded(values)
        np.testing.assert_array_equal(wire.rounded(once), once)


@pytest.mark.parametrize("wire", [INT8, BF16], ids=["int8", "bf16"])
def test_over_rounds_nothing_is_lost(wire) -> None:
    """What arrived in all is what was made in all, less what the site still holds; an array that rests keeps its part."""
    left = Arrays()
    arrived: dict[str, np.ndarray] = {}
    made: dict[str, np.ndarray] = {}
    for number in range(30):
        now = change(number, 1e-3 if number % 2 else 1.0)
        if number % 3 == 0:
            now["b"] = np.zeros_like(now["b"])
        sent, left = with_feedback(now, left, wire)
        assert not sent["still"].any()
        if number % 3 == 0:
            assert not sent["b"].any()
        for name, array in now.items():
            arrived[name] = arrived.get(name, np.zeros(1)) + sent[name].astype(np.float64)
            made[name] = made.get(name, np.zeros(1)) + array.astype(np.float64)
    for name, total in made.items():
        np.testing.assert_allclose(arrived[name] + left[name], total, atol=1e-5)
        assert np.abs(arrived[name] - total).max() < 2**-5  # of one round's rounding


def test_a_small_steady_change_arrives_though_each_rounds_to_nothing() -> None:
    """Beside a value of 1, 0.001 is no step of int8: without feedback it would never arrive."""
    steady, left, total = {"a": np.array([1.0, 0.001], np.float32)}, Arrays(), np.zeros(2)
    for _ in range(100):
        sent, left = with_feedback(steady, left, INT8)
        total += sent["a"]
    assert INT8.rounded(steady["a"])[1] == 0
    np.testing.assert_allclose(total, [100, 0.1], atol=2**-6)


@pytest.mark.parametrize(("name", "part"), [("bf16", 0.5), ("int8", 0.25)])
def test_a_reply_is_read_as_it_was_sent_in_fewer_bytes(name: str, part: float) -> None:
    wire = WIRES[name]
    large = {"w": np.random.default_rng(0).standard_normal((400, 400)).astype(np.float32)}
    sent, _ = with_feedback(large, {}, wire)
    content = write_reply(SiteReply("a", 1, update=Update(sent)), wire)
    np.testing.assert_array_equal(read_reply(content, large, wire).update.change["w"], sent["w"])
    assert record_bytes(content.array_records["change"]) == pytest.approx(part * record_bytes(pack_arrays(large)), rel=1e-3)
    with pytest.raises(FederationError, match="Array w: expected float32"):
        read_reply(content, large)
    with pytest.raises(FederationError, match="Array w: expected"):
        read_reply(write_reply(SiteReply("a", 1, update=Update(large))), large, wire)


def test_hostile_codes_are_refused_or_finite() -> None:
    template = {"w": np.zeros((2, 2), np.float32)}
    worst = ArrayRecord({"w": Array(np.array([127, 127, -128, 127, 1], np.int8))})  # 2 to the 127th, and a code that nobody sends
    with pytest.raises(FederationError, match="not finite"):
        unpack_arrays(worst, template, INT8)
    infinite = ArrayRecord({"w": Array(np.full((2, 2), 0x7F80, np.uint16))})
    with pytest.raises(FederationError, match="not finite"):
        unpack_arrays(infinite, template, BF16)
    hostile: list[np.ndarray] = [np.array([0, 1, 2, 3], np.int8), np.zeros((5,), np.uint8), np.zeros((5, 1), np.int8)]
    for codes in hostile:
        with pytest.raises(FederationError, match="Array w: expected"):
            unpack_arrays(ArrayRecord({"w": Array(codes)}), template, INT8)
