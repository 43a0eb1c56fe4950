"""The wire: what is written comes back, and what is wrong is refused by name before it is decoded."""

import struct

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from common.errors import FederationError
from common.messages.round import (
    SiteReply,
    Task,
    pack_arrays,
    read_reply,
    read_task,
    record_bytes,
    unpack_arrays,
    write_reply,
    write_task,
)
from common.messages.update import Update
from common.text import printable

LIKE = {"a.lora_a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.float32)}
ARRAYS = {"b": np.array(1.5, np.float32), "a.lora_a": np.arange(6, dtype=np.float32).reshape(2, 3)}


def reply_record(**changes) -> RecordDict:
    content = write_reply(
        SiteReply("du", 4, update=Update(ARRAYS), patients=30, labelled=20, counts_shared=True, metrics={"dino": 0.5})
    )
    for name, record in changes.items():
        content[name] = record
    return content


def test_a_task_comes_back_as_it_was_written():
    task = Task(7, '{"seed": 1}', "c" * 64, "b" * 64, "hospital-a", "/data/sites", "/cache")
    assert read_task(write_task(task, pack_arrays(ARRAYS))) == task


def test_a_reply_comes_back_as_it_was_written():
    reply = read_reply(reply_record(), LIKE)
    assert (reply.site, reply.round, reply.error, reply.patients, reply.labelled) == ("du", 4, "", 30, 20)
    assert reply.counts_shared
    assert reply.metrics == {"dino": 0.5}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(reply.update.change[name], array)
        assert reply.update.change[name].shape == LIKE[name].shape


def test_arrays_in_another_memory_order_arrive_right():
    turned = {"w": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))}
    np.testing.assert_array_equal(unpack_arrays(pack_arrays(turned), turned)["w"], [[0, 1, 2], [3, 4, 5]])


def test_an_error_travels_without_arrays_as_one_short_line():
    content = write_reply(SiteReply("du", 1, error="bad\n\x1b[31mthing " + "x" * 1000))
    assert "change" not in content
    error = read_reply(content, LIKE).error
    assert error.startswith("bad [31mthing xxx")
    assert len(error) == 300
    assert error.isprintable()


def test_numbers_that_are_not_finite_are_left_out_of_the_metrics():
    content = write_reply(SiteReply("du", 1, update=Update(ARRAYS), metrics={"dino": float("nan"), "ibot": 1.0}))
    assert read_reply(content, LIKE).metrics == {"ibot": 1.0}


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"b": ARRAYS["b"]}, "missing .'a.lora_a'"),
        (ARRAYS | {"c\n": ARRAYS["b"]}, "unknown .'c'"),
        (ARRAYS | {"a.lora_a": np.zeros((3, 2), np.float32)}, "a.lora_a: expected float32 .2, 3., got float32 .3, 2."),
        (ARRAYS | {"a.lora_a": np.zeros((2, 3), np.float64)}, "a.lora_a: expected float32"),
        (ARRAYS | {"a.lora_a": np.zeros((2, 3), np.int32)}, "a.lora_a: expected float32 .2, 3., got int32"),
        (ARRAYS | {"a.lora_a": np.full((2, 3), np.nan, np.float32)}, "not finite"),
        (ARRAYS | {"b": np.array(np.inf, np.float32)}, "not finite"),
    ],
)
def test_wrong_arrays_are_refused(arrays, says):
    record = ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
    with pytest.raises(FederationError, match=says):
        unpack_arrays(record, LIKE)


def npy(header: bytes, data: bytes) -> Array:
    header = header.ljust(118 - 1) + b"\n"
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data
    return Array("float32", (2, 3), "numpy.ndarray", raw)


@pytest.mark.parametrize(
    "array",
    [
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", b"\0" * 24),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", b"\0" * 20),
        npy(b"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", b"\0" * 24),
        npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", b"\0" * 24),
        npy(b"__import__('os').system('true')", b"\0" * 24),
        Array("float32", (2, 3), "numpy.ndarray", b"PK\x03\x04" + b"\0" * 40),
        Array("float32", (2, 3), "numpy.ndarray", b"\x80\x04\x95" + b"\0" * 40),
        Array("float32", (2, 3), "pickle", pack_arrays(ARRAYS)["a.lora_a"].data),
        Array("float32", (2, 3), "numpy.ndarray", b"\0" * 1_000_000),
    ],
    ids=["terabytes", "cut off", "turned", "objects", "code", "zip", "pickle", "other type", "too long"],
)
def test_a_hostile_array_is_refused_before_it_is_read(array):
    with pytest.raises(FederationError, match=r"a\.lora_a"):
        unpack_arrays(ArrayRecord({"a.lora_a": array, "b": Array(ARRAYS["b"])}), LIKE)


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": MetricRecord({"num-examples": 30, "labelled": 31, "round": 4})},
        {"metrics": MetricRecord({"num-examples": 0, "labelled": 0, "round": 4})},
        {"metrics": MetricRecord({"num-examples": 1e9, "labelled": 3, "round": 4})},
        {"metrics": MetricRecord({"num-examples": 10**12, "labelled": 3, "round": 4})},
        {"metrics": MetricRecord({"num-examples": 3, "labelled": 3})},
        {"metrics": MetricRecord({"num-examples": 3, "labelled": 3, "round": 4, **{f"m{i}": 1.0 for i in range(65)}})},
        {"metrics": ConfigRecord({})},
        {"site": ConfigRecord({"name": "x" * 121, "error": "", "counts-shared": True})},
        {"site": ConfigRecord({"name": 3, "error": "", "counts-shared": True})},
        {"site": ConfigRecord({"name": "du", "error": "x" * 40_000, "counts-shared": True})},
        {"site": ConfigRecord({"name": "du"})},
    ],
)
def test_a_reply_with_a_wrong_field_is_refused(changes):
    with pytest.raises(FederationError):
        read_reply(reply_record(**changes), LIKE)


def test_a_missing_record_is_named():
    with pytest.raises(FederationError, match="no ConfigRecord 'site'"):
        read_reply(RecordDict(), LIKE)
    with pytest.raises(FederationError, match="no ConfigRecord 'config'"):
        read_task(RecordDict())


@given(st.text(max_size=2000), st.integers(1, 300))
def test_printable_text_is_short_and_printable(text, limit):
    result = printable(text, limit)
    assert len(result) <= limit
    assert result.isprintable()
    assert printable(result, limit) == result.strip()


def test_bytes_are_those_of_the_packed_arrays():
    record = pack_arrays({"w": np.zeros(1000, np.float32)})
    assert 4000 < record_bytes(record) < 4200
    assert record_bytes(None) == 0
