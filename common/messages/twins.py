"""The messages that find the same person at two hospitals, before the first round.

    offer    Offer    ->  Offered   each site makes a key pair for this exchange alone
    group    Group    ->  Grouped   the first seat draws the group's key, and encrypts it for each other site
    send     Send     ->  Sent      and `sealed`: each site's keyed fingerprints under the group's key
    compare  Compare  ->  Compared  given the other sites' `sealed`, and the external patients' fingerprints as they are

The server carries ciphertexts; it never has the group's key. Everything is checked for type and size; nothing is unpickled.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from common.errors import FederationError
from common.messages.round import SiteReply, unpack_array, write_status
from common.messages.secure_aggregation import to_record

TWINS, SEALED, EXTERNAL = "twins", "sealed", "external"  # names of records
SIZES, TOKENS = "sizes", "tokens"  # arrays of the record of external fingerprints
MAX_SEALED = 2**28  # bytes


@dataclass(frozen=True)
class Offer:
    """Begin; who takes part is known afterwards."""

    stage: ClassVar[str] = "offer"
    session: str


@dataclass(frozen=True)
class Offered:
    """A public key, PEM."""

    stage: ClassVar[str] = "offer"
    public: bytes


@dataclass(frozen=True)
class Group:
    """All who take part; for the site of the first seat alone."""

    stage: ClassVar[str] = "group"
    session: str
    seat: int
    publics: tuple[bytes, ...]  # in the order of the seats, 1 to n


@dataclass(frozen=True)
class Grouped:
    """The group's key, encrypted for seats 2 to n."""

    stage: ClassVar[str] = "group"
    letters: tuple[bytes, ...]


@dataclass(frozen=True)
class Send:
    """The group's key for this site, from the first seat; and all who take part."""

    stage: ClassVar[str] = "send"
    session: str
    seat: int
    publics: tuple[bytes, ...]
    letter: bytes  # empty for the first seat, whose key it is


@dataclass(frozen=True)
class Sent:
    """The sealed fingerprints are in the record beside it."""

    stage: ClassVar[str] = "send"


@dataclass(frozen=True)
class Compare:
    """Seats whose sealed fingerprints are in the record beside it, each an array of its number."""

    stage: ClassVar[str] = "compare"
    session: str
    seats: tuple[int, ...]


@dataclass(frozen=True)
class Compared:
    """How many patients the site leaves out, where its policy lets it tell (`shared` is 1); else both are 0."""

    stage: ClassVar[str] = "compare"
    shared: int
    left_out: int


REPLIES: Mapping[str, type] = {kind.stage: kind for kind in (Offered, Grouped, Sent, Compared)}


def group_hash(session: str, publics: Sequence[bytes]) -> bytes:
    """Of what the first seat received. Its letters hold it: a site that received other keys refuses."""
    digest = hashlib.sha256(session.encode())
    for public in publics:
        digest.update(hashlib.sha256(public).digest())
    return digest.digest()


def write_told(reply: SiteReply, message: Any, sealed: bytes | None = None) -> RecordDict:
    """A site's reply: its status, its message of the stage, and its sealed fingerprints."""
    content = write_status(reply)
    content[TWINS] = to_record(message)
    if sealed is not None:
        content[SEALED] = ArrayRecord({SEALED: _bytes(sealed)})
    return content


def pack_sealed(sealed: Mapping[int, bytes]) -> ArrayRecord:
    """Several sites' sealed fingerprints, by seat."""
    return ArrayRecord({str(seat): _bytes(one) for seat, one in sorted(sealed.items())})


def read_sealed(record: object, name: str) -> bytes:
    """One site's sealed fingerprints.

    Raises:
        FederationError: they are not there, of another form, or too large.
    """
    array = record.get(name) if isinstance(record, ArrayRecord) else None
    if array is None or len(array.shape) != 1 or not 0 < array.shape[0] <= MAX_SEALED:
        raise FederationError("Twins: expected sealed fingerprints.")
    return unpack_array(name, array, (int(array.shape[0]),), "|u1").tobytes()


def pack_external(members: Sequence[NDArray[np.uint64]]) -> ArrayRecord:
    """The external patients' fingerprints, as they are: the coordinator holds these patients, and has no key."""
    sizes = np.array([one.size for one in members], "<u4")
    tokens = np.concatenate([np.empty(0, np.uint64), *members]).astype("<u8")
    return ArrayRecord({SIZES: Array(sizes), TOKENS: Array(tokens)})


def read_external(record: object) -> list[NDArray[np.uint64]]:
    """Fingerprints of `pack_external`; none where there is no record.

    Raises:
        FederationError: of another form, or too large.
    """
    if record is None:
        return []
    if not isinstance(record, ArrayRecord) or set(record) != {SIZES, TOKENS}:
        raise FederationError("Twins: expected the external patients' fingerprints.")
    lengths = {name: int(np.prod(record[name].shape)) for name in record}
    if sum(lengths.values()) > MAX_SEALED // 8:
        raise FederationError("Twins: too many external fingerprints.")
    sizes = unpack_array(SIZES, record[SIZES], (lengths[SIZES],), "<u4").astype(np.int64)
    tokens = unpack_array(TOKENS, record[TOKENS], (lengths[TOKENS],), "<u8").astype(np.uint64)
    if sizes.sum() != tokens.size:
        raise FederationError("Twins: the external patients' fingerprints have other sizes than announced.")
    return [np.unique(part) for part in np.split(tokens, np.cumsum(sizes)[:-1])] if sizes.size else []


def stage_of(content: RecordDict) -> str:
    """The stage that a request is for; "" where it is none."""
    record = content.get(TWINS)
    return str(record.get("stage")) if isinstance(record, ConfigRecord) else ""


def _bytes(data: bytes) -> Array:
    return Array(np.frombuffer(data, np.uint8).copy())
