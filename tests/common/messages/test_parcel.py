"""Arrays that travel as one come out as they went in, and each side works with one that knows nothing of it."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from common.errors import FederationError
from common.messages.parcel import KIND, MARK, is_packed, marked, packed, unpacked
from common.messages.round import pack_arrays, unpack_arrays
from common.messages.wire import WIRES

ARRAYS = {f"block.{number}": np.full((3, number + 1), number, np.float32) for number in range(20)}


def message(wire: str = "float32") -> RecordDict:
    records = {"change": pack_arrays(ARRAYS, WIRES[wire]), "one": ArrayRecord({"x": Array(np.zeros(2, np.float32))})}
    return RecordDict({**records, "metrics": MetricRecord({"n": 1}), "site": ConfigRecord({"name": "a", "error": ""})})


@pytest.mark.parametrize("wire", sorted(WIRES))
def test_what_is_packed_comes_out_as_it_was(wire) -> None:
    content = message(wire)
    found = unpacked(marked(packed(content)))
    assert list(found) == list(content)
    assert found == content
    assert [(a.dtype, a.shape, a.stype, a.data) for a in found.array_records["change"].values()] == [
        (a.dtype, a.shape, a.stype, a.data) for a in content.array_records["change"].values()
    ]
    assert unpack_arrays(found.array_records["change"], ARRAYS, WIRES[wire]).keys() == ARRAYS.keys()
    assert MARK not in found


def test_twenty_arrays_are_few_objects_for_flower() -> None:
    assert len(get_all_nested_objects(message())) > 2 * len(ARRAYS)
    assert len(get_all_nested_objects(packed(message()))) < 10


def test_what_is_not_packed_is_left_as_it_is() -> None:
    assert not is_packed(message())
    assert is_packed(packed(message()))
    assert unpacked(message()) == message()
    assert not is_packed(packed(RecordDict({"one": message()["one"]})))
    assert packed(RecordDict({"none": ArrayRecord()})) == RecordDict({"none": ArrayRecord()})


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x0a\x05abc"])
def test_a_parcel_that_cannot_be_read_is_refused(data) -> None:
    broken = RecordDict({"change": ArrayRecord({"x": Array("uint8", (len(data),), KIND, data)})})
    with pytest.raises(FederationError, match="cannot be read"):
        unpacked(broken)


def test_more_arrays_than_any_model_has_are_neither_packed_nor_unpacked(monkeypatch) -> None:
    many = message()
    parcel = packed(many)
    monkeypatch.setattr("common.messages.parcel.MOST_ARRAYS", len(ARRAYS) - 1)
    assert not is_packed(packed(many))
    with pytest.raises(FederationError, match="cannot be read"):
        unpacked(parcel)


def test_what_protobuf_could_not_hold_travels_as_it_is(monkeypatch) -> None:
    monkeypatch.setattr("common.messages.parcel.MOST_BYTES", 100)
    assert not is_packed(packed(message()))


def test_a_parcel_in_a_parcel_stays_one() -> None:
    inner = packed(message()).array_records["change"]
    twice = packed(RecordDict({"change": ArrayRecord({"a": inner[KIND], "b": inner[KIND]})}))
    found = unpacked(twice).array_records["change"]
    assert [array.stype for array in found.values()] == [KIND, KIND]
    with pytest.raises(FederationError):
        unpack_arrays(found, ARRAYS)
