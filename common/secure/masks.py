"""Masks that hide one update (Bonawitz et al., CCS 2017): pairwise masks cancel in the sum, own masks are subtracted.

Flower's own generator for masks folds its 256-bit seed to 32 bits, which a server can try out in minutes, and never gives its
largest value. So masks here are the ChaCha20 key stream, all 2^32 values alike.
"""

import base64

import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

from common.secure.fixed_point import Words

SEED_BYTES = 32
_NONCE = bytes(16)  # each seed serves one round, and one mask


def expand(seed: bytes, length: int) -> Words:
    """A mask of `length` words from 32 bytes of seed."""
    stream = Cipher(algorithms.ChaCha20(seed, _NONCE), mode=None).encryptor().update(bytes(4 * length))
    return np.frombuffer(stream, dtype="<u4").astype(np.uint32)


def pair_seed(secret: bytes, public: bytes) -> bytes:
    """The seed that two sites share: ECDH on P-384, HKDF-SHA256. Both are PEM; the other site gets the same bytes."""
    shared = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(public))
    return base64.urlsafe_b64decode(shared)


def is_public_key(public: bytes) -> bool:
    """Whether these bytes are a P-384 public key as PEM."""
    try:
        key = bytes_to_public_key(public)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)


def pair_mask(secret: bytes, public: bytes, own: int, other: int, length: int) -> Words:
    """What site `own` adds on account of `other`: the one adds what the other takes off."""
    mask = expand(pair_seed(secret, public), length)
    return mask if own > other else np.negative(mask)
