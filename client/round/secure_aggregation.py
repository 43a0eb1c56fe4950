"""The site's part of secure aggregation: its update leaves masked, and the masks cancel only in the sum.

The four stages of Bonawitz et al. (CCS 2017), with every site a neighbour of every other: hospitals are tens, not thousands. A
server that keeps to the protocol learns the sum of those who stayed. What every site received (how many sites, whose keys, what
to train) is hashed into the ciphertexts, so that a server cannot send sites different versions. Of one site, the shares of its
mask seed or those of its mask key are given away, never both, and only once. docs/privacy.md says what a malicious server can
still do.
"""

import hashlib
import os
from dataclasses import dataclass, replace

from cryptography.fernet import InvalidToken
from flwr.app import ConfigRecord, RecordDict
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat, share_keys_plaintext_separate
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)

from common.config.run import RunConfig
from common.errors import FederationError
from common.messages.secure_aggregation import (
    OUT_OF_STEP,
    SECURE,
    AdvertisedKeys,
    AdvertiseKeys,
    KeyShares,
    MaskedInput,
    ShareKeys,
    Unmask,
    UnmaskShares,
    from_record,
    to_record,
    view_hash,
)
from common.secure.fixed_point import FixedPoint, Values, Words
from common.secure.masks import SEED_BYTES, expand, is_public_key, pair_mask

REMEMBERED = 10_000  # rounds


@dataclass(frozen=True)
class SiteSecrets:
    """What a site keeps from stage to stage, in its node's own memory; wiped when the round is unmasked."""

    stage: str  # the last that was done
    session: str
    seat: int
    sites: int
    threshold: int
    request: bytes  # what every site of the round is asked to train
    view: bytes = b""  # `view_hash` of what this site received; the others' ciphertexts must hold the same
    mask_secret: bytes = b""
    letter_secret: bytes = b""
    seed: bytes = b""
    seats: tuple[int, ...] = ()  # of all that sent keys, in order
    mask_keys: tuple[bytes, ...] = ()
    letter_keys: tuple[bytes, ...] = ()
    own_shares: tuple[bytes, ...] = ()  # of the own seed and mask key, kept here
    senders: tuple[int, ...] = ()  # whose ciphertexts came; all of these are masked against
    seed_shares: tuple[bytes, ...] = ()
    key_shares: tuple[bytes, ...] = ()
    inputs: bytes = b""  # `inputs_hash` of what was trained


def begin(asked: AdvertiseKeys, config: RunConfig) -> tuple[SiteSecrets, AdvertisedKeys]:
    """Make this round's keys.

    Raises:
        FederationError: so few must stay that two halves could be played against each other.
    """
    if not (asked.sites >= 2 and 1 <= asked.seat <= asked.sites and asked.sites < 2 * asked.threshold <= 2 * asked.sites):
        raise _refusal(f"a threshold of {asked.threshold} of {asked.sites} sites is no majority")
    if asked.threshold < config.secure.threshold * asked.sites - 1e-9:
        raise _refusal(f"{asked.threshold} of {asked.sites} sites is less than secure.threshold = {config.secure.threshold:g}")
    (mask_secret, mask_key), (letter_secret, letter_key) = generate_key_pairs(), generate_key_pairs()
    secrets = SiteSecrets(
        AdvertiseKeys.stage,
        asked.session,
        asked.seat,
        asked.sites,
        asked.threshold,
        asked.request,
        mask_secret=private_key_to_bytes(mask_secret),
        letter_secret=private_key_to_bytes(letter_secret),
    )
    return secrets, AdvertisedKeys(public_key_to_bytes(mask_key), public_key_to_bytes(letter_key))


def share(asked: ShareKeys, mine: SiteSecrets) -> tuple[SiteSecrets, KeyShares]:
    """Secret-share the own mask's seed and the mask key among all sites, each share encrypted for its site.

    Raises:
        FederationError: too few sites, or a list of keys that is not what an honest server would send.
    """
    _require_step(asked.session, mine, AdvertiseKeys.stage)
    seats, keys = asked.seats, (*asked.mask_keys, *asked.letter_keys)
    if len(set(seats)) != len(seats) or not all(1 <= seat <= mine.sites for seat in seats) or mine.seat not in seats:
        raise _refusal("the list of sites is not that of this round")
    if len(asked.mask_keys) != len(seats) or len(asked.letter_keys) != len(seats) or len(set(keys)) != len(keys):
        raise _refusal("the public keys are not two of each site, all different")
    if len(seats) < mine.threshold:
        raise _refusal(f"{len(seats)} sites sent their keys, {mine.threshold} are needed")
    place = seats.index(mine.seat)
    own = tuple(
        public_key_to_bytes(bytes_to_private_key(secret).public_key()) for secret in (mine.mask_secret, mine.letter_secret)
    )
    if own != (asked.mask_keys[place], asked.letter_keys[place]):
        raise _refusal("this site's own keys are not among those sent")
    for seat, key in zip(seats * 2, keys, strict=True):
        _require_key(seat, key)
    view = view_hash(AdvertiseKeys(mine.session, mine.seat, mine.sites, mine.threshold, mine.request), asked)
    seed = os.urandom(SEED_BYTES)
    seed_shares = create_shares(seed, mine.threshold, len(seats))
    key_shares = create_shares(mine.mask_secret, mine.threshold, len(seats))
    others = [i for i in range(len(seats)) if i != place]
    ciphertexts = tuple(
        encrypt(
            _encryption_key(mine, asked.letter_keys[i]),
            view + share_keys_plaintext_concat(mine.seat, seats[i], seed_shares[i], key_shares[i]),
        )
        for i in others
    )
    kept = replace(
        mine,
        stage=ShareKeys.stage,
        view=view,
        seed=seed,
        seats=seats,
        mask_keys=asked.mask_keys,
        letter_keys=asked.letter_keys,
        own_shares=(seed_shares[place], key_shares[place]),
    )
    return kept, KeyShares(tuple(seats[i] for i in others), ciphertexts, hashlib.sha256(seed).digest())


def open_ciphertexts(asked: MaskedInput, mine: SiteSecrets) -> SiteSecrets:
    """Decrypt the shares that the other sites sent; a site trains only after this.

    Raises:
        FederationError: too few ciphertexts, or one that this site cannot decrypt.
    """
    _require_step(asked.session, mine, ShareKeys.stage)
    if sorted((*asked.seats, mine.seat)) != sorted(mine.seats) or len(asked.letters) != len(asked.seats):
        raise _refusal("the encrypted shares are not one from each other site that sent its keys")
    opened = [_open(ciphertext, sender, mine) for sender, ciphertext in zip(asked.seats, asked.letters, strict=True)]
    return replace(
        mine,
        stage=MaskedInput.stage,
        senders=(*asked.seats, mine.seat),
        seed_shares=(*(seed for seed, _ in opened), mine.own_shares[0]),
        key_shares=(*(key for _, key in opened), mine.own_shares[1]),
    )


def mask(mine: SiteSecrets, config: RunConfig, change: Values, weight: float) -> Words:
    """The weighted update under the own mask and one for each other site: all that leaves.

    Raises:
        FederationError: an update or a weight that cannot be counted.
    """
    words = FixedPoint.for_sites(mine.sites, config.secure.update_range, config.secure.max_weight).encode(change, weight)
    words += expand(mine.seed, len(words))
    for other in mine.senders:
        if other != mine.seat:
            public = mine.mask_keys[mine.seats.index(other)]
            words += pair_mask(mine.mask_secret, public, mine.seat, other, len(words))
    return words


def unmask(asked: Unmask, mine: SiteSecrets) -> UnmaskShares:
    """Give the shares that the sum needs: of a survivor its own mask's seed, of a dropped site its mask key, of no site both.

    Raises:
        FederationError: the lists are not a split of the sites that were masked against, or too few survived.
    """
    _require_step(asked.session, mine, MaskedInput.stage)
    named = (*asked.survivors, *asked.dropped)
    if len(set(named)) != len(named) or set(named) != set(mine.senders) or mine.seat not in asked.survivors:
        raise _refusal("survivors and dropped sites are not a partition of those that sent encrypted shares")
    if len(asked.survivors) < mine.threshold:
        raise _refusal(f"{len(asked.survivors)} sites survived, {mine.threshold} are needed")
    return UnmaskShares(
        tuple(mine.seed_shares[mine.senders.index(seat)] for seat in asked.survivors),
        tuple(mine.key_shares[mine.senders.index(seat)] for seat in asked.dropped),
    )


def require_new(state: RecordDict, site: str, request: bytes) -> None:
    """Refuse a round that this site has helped to unmask: the difference of two sums could be one site's update.

    Args:
        state: of the node, for one run; over all runs the gate remembers (`client.gate.replay_guard`).
        site: its name.
        request: hash of a request (`request_hash`), or of what it trains on (`inputs_hash`).

    Raises:
        FederationError: it is known.
    """
    if request in _answered(state, site):
        raise _refusal("this round was unmasked before")


def remember(state: RecordDict, site: str, *hashes: bytes) -> None:
    """Note that the round of these hashes is unmasked, as far as this site goes."""
    kept = [*_answered(state, site), *hashes][-REMEMBERED:]
    state[f"{SECURE}-done-{site}"] = ConfigRecord({"requests": kept})


def _answered(state: RecordDict, site: str) -> list[bytes]:
    """Requests whose rounds were unmasked, the latest last."""
    record = state.get(f"{SECURE}-done-{site}")
    return list(record["requests"]) if isinstance(record, ConfigRecord) else []  # type: ignore[arg-type]


def load_secrets(state: RecordDict, site: str) -> SiteSecrets | None:
    """What the site kept, if a round is on."""
    record = state.get(f"{SECURE}-{site}")
    return from_record(record, SiteSecrets) if record is not None else None


def keep_secrets(state: RecordDict, site: str, secrets: SiteSecrets | None) -> None:
    """Keep what the next stage needs; None wipes it."""
    name = f"{SECURE}-{site}"
    if secrets is not None:
        state[name] = to_record(secrets)
    elif name in state:
        del state[name]


def _open(ciphertext: bytes, sender: int, mine: SiteSecrets) -> tuple[bytes, bytes]:
    """One ciphertext's two shares, after its sender and addressee were checked."""
    try:
        plain = decrypt(_encryption_key(mine, mine.letter_keys[mine.seats.index(sender)]), ciphertext)
        source, addressee, seed_share, key_share = share_keys_plaintext_separate(plain[len(mine.view) :])
    except (InvalidToken, ValueError, IndexError) as error:
        raise _refusal(f"the encrypted shares of seat {sender} cannot be decrypted") from error
    if (source, addressee) != (sender, mine.seat):
        raise _refusal(f"the encrypted shares of seat {sender} name another sender or recipient than the server does")
    if plain[: len(mine.view)] != mine.view:
        raise _refusal(f"seat {sender} received another list of sites and keys, or another request, than this site")
    return seed_share, key_share


def _encryption_key(mine: SiteSecrets, public: bytes) -> bytes:
    """The key that two sites agree on to encrypt shares for each other."""
    return generate_shared_key(bytes_to_private_key(mine.letter_secret), bytes_to_public_key(public))


def _require_key(seat: int, key: bytes) -> None:
    """Refuse what is no key, before anything is trained."""
    if not is_public_key(key):
        raise _refusal(f"seat {seat} sent no valid public key")


def _require_step(session: str, mine: SiteSecrets, last: str) -> None:
    """Refuse a message of another round, out of turn, or a second time."""
    if session != mine.session or mine.stage != last:
        raise _refusal("the message is of another round, or out of turn")


def _refusal(reason: str) -> FederationError:
    """The site does not go on with this round."""
    return FederationError(f"Secure aggregation refused: {reason}.", public=f"{OUT_OF_STEP}: {reason}")
