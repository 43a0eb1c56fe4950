"""The server's part of a secure round (Bonawitz et al., CCS 2017): it relays keys and encrypted shares, and learns the sum.

No Flower here: requests to the sites come out, their replies go in. n sites, a threshold t of them must stay.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from itertools import combinations, islice

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, public_key_to_bytes

from common.errors import FederationError
from common.messages.secure_aggregation import (
    AdvertisedKeys,
    AdvertiseKeys,
    KeyShares,
    MaskedInput,
    ShareKeys,
    Unmask,
    UnmaskShares,
)
from common.secure.fixed_point import FixedPoint, Values, Words
from common.secure.masks import SEED_BYTES, expand, is_public_key, pair_mask

MISFIT = "Secure aggregation: the sites' shares are inconsistent; too few of them are right to reconstruct a secret."
TRIES = 1000  # choices of shares, should some be wrong


class SecureRound:
    """One attempt at one round.

    Args:
        sites: n, all that are asked; their seats are 1 to n.
        threshold: t, more than half of them.
        length: of the update.
        fixed: how values are counted.
        request: `common.messages.secure_aggregation.request_hash` of what every site will be asked.
    """

    def __init__(self, sites: int, threshold: int, length: int, fixed: FixedPoint, request: bytes) -> None:
        self.sites, self.threshold, self.fixed, self.request = sites, threshold, fixed, request
        self.session = secrets.token_hex(16)
        self.keys: dict[int, AdvertisedKeys] = {}
        self.ciphertexts: dict[int, dict[int, bytes]] = {}  # sender -> recipient -> its encrypted shares
        self.seed_hashes: dict[int, bytes] = {}
        self.total: Words = np.zeros(1 + length, np.uint32)
        self.survivors: set[int] = set()
        self.seed_shares: dict[int, list[bytes]] = {}  # survivor -> shares of its own mask's seed
        self.key_shares: dict[int, list[bytes]] = {}  # dropped site -> shares of its mask key

    @property
    def dropped(self) -> set[int]:
        """Sites that others have masked against, and whose own vector is not in the sum."""
        return self.ciphertexts.keys() - self.survivors

    def keys_for(self, seat: int) -> AdvertiseKeys:
        """Stage 1."""
        return AdvertiseKeys(self.session, seat, self.sites, self.threshold, self.request)

    def take_keys(self, seat: int, reply: AdvertisedKeys) -> None:
        """Keep a site's public keys.

        Raises:
            FederationError: they are no keys, or another site's: all others would refuse the round for them.
        """
        known = {key for other in self.keys.values() for key in (other.mask_key, other.letter_key)}
        mine = {reply.mask_key, reply.letter_key}
        if len(mine) < 2 or mine & known or not all(is_public_key(key) for key in mine):
            raise FederationError("The site's public keys are not two new ones.")
        self.keys[seat] = reply

    def peers_for(self, seat: int) -> ShareKeys:
        """Stage 2: everybody's public keys."""
        del seat
        seats = tuple(sorted(self.keys))
        return ShareKeys(
            self.session,
            seats,
            tuple(self.keys[s].mask_key for s in seats),
            tuple(self.keys[s].letter_key for s in seats),
        )

    def take_shares(self, seat: int, reply: KeyShares) -> None:
        """Keep a site's encrypted shares for the others.

        Raises:
            FederationError: they are not one for each other site.
        """
        if sorted(reply.seats) != sorted(self.keys.keys() - {seat}) or len(reply.letters) != len(reply.seats):
            raise FederationError("The site's encrypted shares are not one for each other site.")
        self.ciphertexts[seat] = dict(zip(reply.seats, reply.letters, strict=True))
        self.seed_hashes[seat] = reply.seed_sha256

    def ciphertexts_for(self, seat: int) -> MaskedInput:
        """Stage 3: the encrypted shares for this site, of all that sent theirs."""
        senders = tuple(sorted(self.ciphertexts.keys() - {seat}))
        return MaskedInput(self.session, senders, tuple(self.ciphertexts[s][seat] for s in senders))

    def take_masked(self, seat: int, words: Words) -> None:
        """Add a masked vector to the sum; it is not kept."""
        self.total += words
        self.survivors.add(seat)

    def unmask_for(self, seat: int) -> Unmask:
        """Stage 4: who is in the sum."""
        del seat
        return Unmask(self.session, tuple(sorted(self.survivors)), tuple(sorted(self.dropped)))

    def take_unmask(self, seat: int, reply: UnmaskShares) -> None:
        """Keep a site's shares.

        Raises:
            FederationError: they are not one for each site that was named.
        """
        del seat
        if len(reply.seed_shares) != len(self.survivors) or len(reply.key_shares) != len(self.dropped):
            raise FederationError("The site's shares are not one for each site that was named.")
        for table, seats, shares in (
            (self.seed_shares, self.survivors, reply.seed_shares),
            (self.key_shares, self.dropped, reply.key_shares),
        ):
            for named, share in zip(sorted(seats), shares, strict=True):
                table.setdefault(named, []).append(share)

    def result(self) -> tuple[Values, float]:
        """The weighted mean update, and the total weight.

        Raises:
            FederationError: shares that do not fit each other, or a sum that no honest sites can have made.
        """
        total, length = self.total.copy(), len(self.total)
        for seat in sorted(self.survivors):
            seed = self._combined(self.seed_shares, seat, _sha256, self.seed_hashes[seat])
            if len(seed) != SEED_BYTES:
                raise FederationError(MISFIT)
            total -= expand(seed, length)
        for gone in sorted(self.dropped):
            secret = self._combined(self.key_shares, gone, _public, self.keys[gone].mask_key)
            for seat in sorted(self.survivors):
                total -= pair_mask(secret, self.keys[seat].mask_key, seat, gone, length)
        return self.fixed.decode(total, len(self.survivors))

    def _combined(self, shares: Mapping[int, list[bytes]], seat: int, mark: Callable[[bytes], bytes], known: bytes) -> bytes:
        """The secret whose mark is known, from as many shares as it takes; where one of them is wrong, others are tried."""
        for chosen in islice(combinations(shares.get(seat, []), self.threshold), TRIES):
            try:
                secret = combine_shares(list(chosen))
            except (ValueError, IndexError, TypeError):
                continue
            if mark(secret) == known:
                return secret
        raise FederationError(MISFIT)


def _sha256(secret: bytes) -> bytes:
    """The mark of a seed."""
    return hashlib.sha256(secret).digest()


def _public(secret: bytes) -> bytes:
    """The public key of a secret one; empty where it is none."""
    try:
        return public_key_to_bytes(bytes_to_private_key(secret).public_key())
    except (ValueError, TypeError):
        return b""
