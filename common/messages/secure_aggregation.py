"""The messages of secure aggregation's four stages (Bonawitz et al., CCS 2017), as Flower ConfigRecords.

    keys     AdvertiseKeys ->  AdvertisedKeys   each site makes two key pairs for this round alone
    shares   ShareKeys     ->  KeyShares        each secret-shares its mask seed and key, every share encrypted for its site
    masked   MaskedInput   ->  (the masked vector, an ArrayRecord)
    unmask   Unmask        ->  UnmaskShares     shares of the survivors' mask seeds, and of the dropped sites' mask keys

On the wire `letters` are the ciphertexts of shares, `letter_key` is the public key that they are encrypted with, and a site's
`seat` is its number in the round, 1 to n. Everything is checked for type and size; nothing is unpickled.
"""

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar, get_type_hints

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from common.config.run import RunConfig
from common.errors import FederationError
from common.messages.round import SiteReply, Task, unpack_array, write_status
from common.models.arrays import Arrays, arrays_sha256
from common.secure.fixed_point import Words

SECURE = "secure"  # name of the record in a request and in a reply
MASKED = "masked"  # name of the masked vector's record
OUT_OF_STEP = "a message of secure aggregation was out of step, or not readable"
MAX_BYTES = 4096  # of one key, share or ciphertext
MAX_SITES = 1000

# What training reads of a configuration. Not the seed, which a site that sends masked updates only does not follow; not what
# weighs, clips or counts an update that is trained already; nothing of evaluation, not even who is held back. Not what sites keep
# to themselves: two runs that differ in it alone make the same change of what both share.
TRAINS = ("data", "model", "objective", "training", "task", "privacy")
TRAINS_FEDERATION = ("rounds", "strategy", "low_rank")


@dataclass(frozen=True)
class AdvertiseKeys:
    """Begin a round: how many sites are asked, and how many must stay to the end."""

    stage: ClassVar[str] = "keys"
    session: str
    seat: int
    sites: int
    threshold: int
    request: bytes  # `request_hash` of what every site will be asked to train


@dataclass(frozen=True)
class AdvertisedKeys:
    """Public keys, PEM: one to agree on pairwise masks, one to encrypt shares."""

    stage: ClassVar[str] = "keys"
    mask_key: bytes
    letter_key: bytes


@dataclass(frozen=True)
class ShareKeys:
    """The public keys of all sites that sent theirs, the asked one's included."""

    stage: ClassVar[str] = "shares"
    session: str
    seats: tuple[int, ...]
    mask_keys: tuple[bytes, ...]
    letter_keys: tuple[bytes, ...]


@dataclass(frozen=True)
class KeyShares:
    """For each other site the ciphertext of its shares; and the hash of the own mask's seed, to check its reconstruction."""

    stage: ClassVar[str] = "shares"
    seats: tuple[int, ...]
    letters: tuple[bytes, ...]
    seed_sha256: bytes


@dataclass(frozen=True)
class MaskedInput:
    """The ciphertexts for the asked site: their senders take part, and mask against each other."""

    stage: ClassVar[str] = "masked"
    session: str
    seats: tuple[int, ...]
    letters: tuple[bytes, ...]


@dataclass(frozen=True)
class Unmask:
    """Whose masked vectors are in the sum, and whose are not."""

    stage: ClassVar[str] = "unmask"
    session: str
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True)
class UnmaskShares:
    """Shares: of the own mask's seed of each survivor, of the mask key of each dropped site, in the order asked."""

    stage: ClassVar[str] = "unmask"
    seed_shares: tuple[bytes, ...]
    key_shares: tuple[bytes, ...]


Kind = TypeVar("Kind")


def request_hash(task: Task, arrays: Arrays) -> bytes:
    """Hash of what a round asks of every site alike: configuration, round and global arrays, not the run's name."""
    return hashlib.sha256(f"{task.config} {task.round} {arrays_sha256(arrays)}".encode()).digest()


def inputs_hash(config: RunConfig, round_number: int, arrays: Arrays) -> bytes:
    """Hash of what training reads: two sums of it, over different sites, would tell one site's update."""
    told = json.loads(config.to_json())
    read = {name: told[name] for name in TRAINS} | {name: told["federation"][name] for name in TRAINS_FEDERATION}
    text = json.dumps([read, round_number, arrays_sha256(arrays)], sort_keys=True)
    return hashlib.sha256(text.encode()).digest()


def view_hash(began: AdvertiseKeys, peers: ShareKeys) -> bytes:
    """Hash of what a site received of the round. Every ciphertext holds it: sites that received different ones refuse."""
    digest = hashlib.sha256(f"{began.session} {began.sites} {began.threshold} {peers.seats} ".encode() + began.request)
    for key in (*peers.mask_keys, *peers.letter_keys):
        digest.update(hashlib.sha256(key).digest())
    return digest.digest()


def to_record(message: Any) -> ConfigRecord:
    """Any dataclass of whole numbers, texts, bytes and tuples of them."""
    values = {f.name: getattr(message, f.name) for f in fields(message)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    stage = getattr(message, "stage", None)
    return ConfigRecord({**plain, "stage": stage} if stage else plain)


def from_record(record: object, kind: type[Kind]) -> Kind:
    """Read one message.

    Raises:
        FederationError: another stage, or a field that is missing, of another type, or too large.
    """
    stage = getattr(kind, "stage", None)
    if not isinstance(record, ConfigRecord) or (stage is not None and record.get("stage") != stage):
        raise FederationError(f"Secure aggregation: expected a message of stage '{stage}'.", public=OUT_OF_STEP)
    hints = get_type_hints(kind)
    return kind(**{f.name: _field(f.name, record.get(f.name), hints[f.name]) for f in fields(kind)})  # type: ignore[arg-type]


def write_stage_reply(reply: SiteReply, message: Any) -> RecordDict:
    """A site's reply: its status, and its message of the stage (or the masked vector)."""
    content = write_status(reply)
    if isinstance(message, np.ndarray):
        content[MASKED] = ArrayRecord({MASKED: Array(np.asarray(message, dtype="<u4", order="C"))})
    else:
        content[SECURE] = to_record(message)
    return content


def read_masked(content: RecordDict, length: int) -> Words:
    """The masked vector of an answer.

    Raises:
        FederationError: it is absent, or of another length or type.
    """
    record = content.get(MASKED)
    if not isinstance(record, ArrayRecord) or list(record) != [MASKED]:
        raise FederationError("The reply has no masked vector.")
    return unpack_array(MASKED, record[MASKED], (length,), "<u4").astype(np.uint32)


def _field(name: str, value: object, hint: Any) -> Any:
    """One checked value; lists come back as tuples."""
    if hint in (tuple[int, ...], tuple[bytes, ...]):
        inner = int if hint == tuple[int, ...] else bytes
        if isinstance(value, list) and len(value) <= MAX_SITES:
            return tuple(_field(name, item, inner) for item in value)
    elif (
        isinstance(value, hint)
        and not isinstance(value, bool)
        and ((isinstance(value, int) and 0 <= value <= 2**31) or (isinstance(value, str | bytes) and len(value) <= MAX_BYTES))
    ):
        return value
    raise FederationError(f"Secure aggregation: field '{name}' is missing, of another type, or too large.", public=OUT_OF_STEP)
