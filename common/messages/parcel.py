"""All arrays of a message in one: Flower moves every array by two requests of its own, and moves it four times.

Between the coordinator's ServerApp and the hospital's gate alone: whoever reads a message, reads it unpacked. The gate packs its
reply where the request has MARK; the coordinator packs what it sends to whom a packed reply came from. So each side works with
one that knows nothing of it. Nothing is unpickled: a parcel is Flower's own protobuf of a record.
"""

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.serde import array_record_from_proto, array_record_to_proto
from flwr.proto.recorddict_pb2 import ArrayRecord as ArrayRecordProto

from common.errors import FederationError

MARK = "parcels"  # record of a request: the reply may be packed
KIND = "fedmri.parcel"  # in the place of a type of array
MOST_ARRAYS = 10_000  # of one: each becomes an object, however short it is
MOST_BYTES = 2**30  # more travels as it is: protobuf ends at twice that


def marked(content: RecordDict) -> RecordDict:
    """A copy of a request that lets the reply be packed."""
    return RecordDict({**content, MARK: ConfigRecord({})})


def packed(content: RecordDict) -> RecordDict:
    """A copy in which each record of several arrays holds one."""
    return RecordDict({name: _pack(record) if isinstance(record, ArrayRecord) else record for name, record in content.items()})


def unpacked(content: RecordDict) -> RecordDict:
    """A copy as it was before `packed` and `marked`.

    Raises:
        FederationError: a parcel cannot be read.
    """
    rest = {name: record for name, record in content.items() if name != MARK}
    return RecordDict({name: _unpack(record) if _is_parcel(record) else record for name, record in rest.items()})


def is_packed(content: RecordDict) -> bool:
    """Whether any of its records is a parcel."""
    return any(_is_parcel(record) for record in content.values())


def _pack(record: ArrayRecord) -> ArrayRecord:
    if len(record) < 2 or len(record) > MOST_ARRAYS or sum(len(array.data) for array in record.values()) > MOST_BYTES:
        return record
    data = array_record_to_proto(record).SerializeToString()
    return ArrayRecord({KIND: Array(dtype="uint8", shape=(len(data),), stype=KIND, data=data)})


def _is_parcel(record: object) -> bool:
    return isinstance(record, ArrayRecord) and len(record) == 1 and next(iter(record.values())).stype == KIND


def _unpack(record: object) -> ArrayRecord:
    assert isinstance(record, ArrayRecord)
    try:
        proto = ArrayRecordProto.FromString(next(iter(record.values())).data)
        if len(proto.items) > MOST_ARRAYS:
            raise ValueError(f"{len(proto.items)} arrays")
        return array_record_from_proto(proto)
    except Exception as error:  # protobuf and Flower raise many kinds
        raise FederationError(f"The message's arrays cannot be read ({type(error).__name__}).") from error
