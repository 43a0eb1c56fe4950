"""Fingerprints under a key that the sites share and the server has not: hashed for comparison, and sealed on their way.

Of a token its HMAC-SHA256 goes, cut to 8 bytes; of all patients' together a ciphertext, filled up to whole megabytes. So the
server sees sizes, and another site what it can compare and nothing that outlives the run's key.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from common.errors import FederationError

Tokens = NDArray[np.uint64]
KEY_BYTES = 32
NONCE_BYTES = 12
STEP_BYTES = 2**20  # sealed fingerprints are filled up to a multiple of it: their length tells the patients' number roughly
MAX_MEMBERS = 1_000_000


def group_key() -> bytes:
    """A new key."""
    return os.urandom(KEY_BYTES)


def keyed(tokens: Tokens, key: bytes) -> Tokens:
    """Each token's keyed hash, sorted."""
    own = _derived(key, b"tokens")
    raw = tokens.astype("<u8").tobytes()
    hashes = b"".join(hmac.digest(own, raw[i : i + 8], "sha256")[:8] for i in range(0, len(raw), 8))
    return np.unique(np.frombuffer(hashes, "<u8").astype(np.uint64))


def seal(members: Sequence[Tokens], key: bytes, sender: int) -> bytes:
    """Keyed fingerprints as one ciphertext.

    Args:
        members: one for each patient.
        key: of the group.
        sender: seat of the sealing site: nobody can send another site's on as its own.
    """
    sizes = np.array([len(members), *(one.size for one in members)], "<u4").tobytes()
    plain = sizes + b"".join(one.astype("<u8").tobytes() for one in members)
    plain += bytes(-(len(plain) + 4) % STEP_BYTES) + len(plain).to_bytes(4, "little")
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(_derived(key, b"seal")).encrypt(nonce, plain, str(sender).encode())


def unseal(sealed: bytes, key: bytes, sender: int) -> list[Tokens]:
    """The fingerprints of `seal`.

    Raises:
        FederationError: another key or sender, or no fingerprints in it.
    """
    try:
        plain = AESGCM(_derived(key, b"seal")).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], str(sender).encode())
        plain = plain[: int.from_bytes(plain[-4:], "little")]
        count = int(np.frombuffer(plain[:4], "<u4")[0])
        if count > MAX_MEMBERS:
            raise ValueError("too many")
        sizes = np.frombuffer(plain[4 : 4 * (count + 1)], "<u4").astype(np.int64)
        tokens = np.frombuffer(plain[4 * (count + 1) :], "<u8").astype(np.uint64)
        if sizes.size != count or sizes.sum() != tokens.size:
            raise ValueError("sizes")
    except (InvalidTag, ValueError, IndexError) as error:
        raise FederationError(f"The sealed fingerprints of seat {sender} cannot be read.") from error
    return [np.unique(part) for part in np.split(tokens, np.cumsum(sizes)[:-1])] if count else []


def _derived(key: bytes, use: bytes) -> bytes:
    return hmac.digest(key, b"fedmri twins " + use, hashlib.sha256)
