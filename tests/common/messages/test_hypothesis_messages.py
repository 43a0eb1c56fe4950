"""What comes over the wire, in any shape: read, or refused with a sentence. Nothing is unpickled."""

import pickle
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given

from common.config.sections import FederationConfig
from common.errors import FedMRIError
from common.messages.round import SiteReply, Task, pack_arrays, read_reply, read_task, unpack_array, write_reply, write_task
from common.messages.secure_aggregation import (
    AdvertisedKeys,
    AdvertiseKeys,
    KeyShares,
    MaskedInput,
    ShareKeys,
    Unmask,
    UnmaskShares,
    from_record,
    read_masked,
)
from common.messages.update import Update
from server.strategy.aggregation import judge_reply
from tests.damage import MANY, NUMBERS, WORDS, made, mutated, nothing_unpickled

pytestmark = pytest.mark.slow

LIKE = {"v": np.zeros((2, 2), np.float32), "w": np.zeros(3, np.float32)}
KINDS = (AdvertiseKeys, AdvertisedKeys, ShareKeys, KeyShares, MaskedInput, Unmask, UnmaskShares)
FIELDS = sorted({name for kind in KINDS for name in kind.__dataclass_fields__} | {"stage"})
TASK = {"round": 1, "config": "{}", "code": "c", "backbone": "b", "run": "r", "site": "", "data": "", "cache": ""}
SITE: dict[str, Any] = {"name": "s", "error": "", "counts-shared": True, "epsilon": 1.0}
METRICS: dict[str, Any] = {"num-examples": 3, "labelled": 2, "round": 1, "dino": 0.5}
GOOD = [pack_arrays(LIKE)["w"].data, pack_arrays(LIKE)["v"].data, pickle.dumps(np.arange(3))]
NPY = (b"(" * 2000, b"9" * 400, b"O", b"|O", b"{", b"}", b"True", b"(3,3,3)", b"\x93NUMPY\x02\x00", b"[" * 3000, b"-1")


@pytest.fixture(autouse=True)
def guarded():
    with nothing_unpickled():
        yield


def value(random: Random) -> Any:
    scalars = (random.choice(WORDS[:4]), random.choice(NUMBERS), random.randbytes(3), True, False)
    single = random.choice(scalars)
    return [single] * random.randrange(4) if random.random() < 0.3 else single


def record(random: Random, kind: type, good: dict[str, Any]) -> Any:
    """The good record with some values changed, left out, put in; as far as Flower lets it."""
    table = kind()
    for name, was in good.items():
        draw = random.random()
        with suppress(TypeError, ValueError):
            if draw > 0.2:
                table[name] = was if draw > 0.4 else value(random)
    for _ in range(random.choice((0, 0, 1, 80))):
        with suppress(TypeError, ValueError):
            table[random.choice(WORDS) + str(random.randrange(99))] = value(random)
    return table


def array(random: Random) -> Array:
    data = random.choice(GOOD)
    data = data if random.random() < 0.3 else mutated(random, data, NPY)
    stype = random.choice(("numpy.ndarray", "numpy.ndarray", "pickle", ""))
    return Array(dtype=random.choice(("float32", "object", "?")), shape=(random.choice((3, -1, 2**40)),), stype=stype, data=data)


def arrays(random: Random) -> ArrayRecord:
    names = [name for name in ("v", "w", "masked", "x") if random.random() < (0.2 if name == "x" else 0.8)]
    good = pack_arrays(LIKE)
    return ArrayRecord({name: good[name] if name in good and random.random() < 0.5 else array(random) for name in names})


def content(random: Random) -> RecordDict:
    parts = {
        "arrays": arrays(random),
        "config": record(random, ConfigRecord, TASK),
        "site": record(random, ConfigRecord, SITE) if random.random() < 0.7 else ConfigRecord(SITE),
        "metrics": record(random, MetricRecord, METRICS) if random.random() < 0.7 else MetricRecord(METRICS),
        "masked": arrays(random),
    }
    names = list(parts)
    if random.random() < 0.1:
        random.shuffle(names)  # every record under another's name
    return RecordDict({name: part for name, part in zip(names, parts.values(), strict=True) if random.random() < 0.95})


@MANY
@given(made(content))
def test_any_content(content):
    for read in (read_task, lambda c: read_reply(c, LIKE), lambda c: judge_reply(c, LIKE, 1, FederationConfig())):
        with suppress(FedMRIError):
            read(content)
    with suppress(FedMRIError):
        read_masked(content, 3)


@MANY
@given(made(array))
def test_any_array(array):
    for shape, dtype in (((3,), "<f4"), ((2, 2), "<f4"), ((3,), "<u4")):
        with suppress(FedMRIError):
            assert unpack_array("w", array, shape, dtype).shape == shape


def stage(random: Random) -> tuple[ConfigRecord, type]:
    kind = random.choice(KINDS)
    good = {name: random.choice(("s", 1, [1, 2], [b"x"], b"x")) for name in FIELDS} | {"stage": kind.stage}
    return record(random, ConfigRecord, good), kind


@MANY
@given(made(stage))
def test_any_message_of_a_secure_round(case):
    told, kind = case
    with suppress(FedMRIError):
        assert isinstance(from_record(told, kind), kind)


REPLY = write_reply(SiteReply("s", 1, update=Update(LIKE), patients=3, labelled=2, counts_shared=True, metrics={"dino": 0.5}))
REQUEST = write_task(Task(1, "{}", "code", "backbone"), pack_arrays(LIKE))
PARTS = [  # each object of a reply and a request, as Flower sends it: its bytes, and the objects that they name
    (type(part), part.deflate(), dict(part.children or {}))
    for whole in (REPLY, REQUEST)
    for part in get_all_nested_objects(whole).values()
]
SLOTS = {ArrayRecord: "change", MetricRecord: "metrics", ConfigRecord: "site"}


def wire(random: Random) -> tuple[type, bytes, dict[str, Any]]:
    kind, whole, children = random.choice(PARTS)
    at, data = random.randrange(len(whole)), bytearray(whole)
    data[at : at + random.randrange(3)] = random.randbytes(random.randrange(1, 3))
    return kind, bytes(data), children


read_through = {"all": 0, "inflated": 0}


@MANY
@given(made(wire))
def test_mutated_bytes_of_flowers_wire(case):
    kind, data, children = case
    read_through["all"] += 1
    try:
        found = kind.inflate(data, children or None)
    except Exception:  # Flower's own reader refuses it, before anything of ours sees it
        return
    read_through["inflated"] += 1
    slot = SLOTS.get(kind)
    if kind is Array:
        found, slot = ArrayRecord({"v": REPLY["change"]["v"], "w": found}), "change"
    if slot is None and kind is not RecordDict:
        return
    received = RecordDict({**REPLY, slot: found}) if slot else found
    for read in (read_task, lambda c: judge_reply(c, LIKE, 1, FederationConfig())):
        with suppress(FedMRIError):
            read(received)


def test_enough_of_the_wire_came_through():
    if read_through["all"]:
        assert read_through["inflated"] > read_through["all"] / 20
