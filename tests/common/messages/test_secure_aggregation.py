"""Messages that came over a wire."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from common.errors import FederationError
from common.messages.round import SiteReply, read_status
from common.messages.secure_aggregation import (
    MASKED,
    SECURE,
    AdvertisedKeys,
    AdvertiseKeys,
    KeyShares,
    MaskedInput,
    ShareKeys,
    Unmask,
    UnmaskShares,
    from_record,
    read_masked,
    to_record,
    write_stage_reply,
)

KINDS = (AdvertiseKeys, AdvertisedKeys, ShareKeys, KeyShares, MaskedInput, Unmask, UnmaskShares)
SENT = (
    AdvertiseKeys("s", 1, 3, 2, b"r"),
    AdvertisedKeys(b"a", b"b"),
    ShareKeys("s", (1, 2), (b"a", b"c"), (b"b", b"d")),
    KeyShares((2,), (b"x",), b"h"),
    MaskedInput("s", (), ()),
    Unmask("s", (1, 2), ()),
    UnmaskShares((b"x",), ()),
)
values = st.one_of(
    st.integers(-(2**40), 2**40),
    st.booleans(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(-5, 5), max_size=3),
    st.lists(st.binary(max_size=4), max_size=3),
    st.lists(st.text(max_size=3), max_size=3),
)


@pytest.mark.parametrize("message", SENT, ids=lambda m: type(m).__name__)
def test_what_is_written_is_read(message: Any) -> None:
    assert from_record(to_record(message), type(message)) == message


@given(
    st.sampled_from(KINDS), st.dictionaries(st.sampled_from(["stage", "session", "seat", "seats", "letters", "sites"]), values)
)
def test_anything_else_is_refused_and_nothing_else_is_raised(kind: type, fields: dict[str, Any]) -> None:
    stage = kind.stage  # type: ignore[attr-defined]
    with pytest.raises(FederationError, match="Secure aggregation"):
        from_record(
            ConfigRecord(
                {"stage": stage}
                | fields
                | {
                    "seed_sha256": 1,
                    "survivors": b"",
                    "mask_key": "",
                    "threshold": -1,
                    "mask_keys": 3,
                    "seed_shares": 1.0,
                    "seats": 5,
                }
            ),
            kind,
        )


@pytest.mark.parametrize("record", [None, RecordDict(), ConfigRecord(), to_record(SENT[1])])
def test_another_stage_is_refused(record: object) -> None:
    with pytest.raises(FederationError, match="stage 'unmask'"):
        from_record(record, UnmaskShares)


@pytest.mark.parametrize(
    "changes", [{"mask_key": b"k" * 5000}, {"mask_key": "text"}, {"letter_key": 3}], ids=["too large", "text", "number"]
)
def test_a_field_of_another_kind_or_size_is_refused_by_name(changes: dict[str, Any]) -> None:
    record = to_record(SENT[1])
    record.update(changes)
    with pytest.raises(FederationError, match=next(iter(changes))):
        from_record(record, AdvertisedKeys)


def test_a_masked_vector_travels_and_another_length_or_type_is_refused() -> None:
    words = np.array([1, 2**32 - 1, 7], np.uint32)
    content = write_stage_reply(SiteReply("du", 3, epsilon=1.5), words)
    np.testing.assert_array_equal(read_masked(content, 3), words)
    assert read_status(content) == SiteReply("du", 3, epsilon=1.5)
    assert SECURE not in content
    for bad in (np.zeros(4, np.uint32), np.zeros(3, np.float32), np.zeros((1, 3), np.uint32)):
        with pytest.raises(FederationError):
            read_masked(RecordDict({MASKED: ArrayRecord({MASKED: Array(bad)})}), 3)
    with pytest.raises(FederationError, match="no masked vector"):
        read_masked(RecordDict(), 3)
