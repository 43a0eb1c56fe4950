"""Masks: alike for both sites of a pair, of all values, from the whole seed."""

import numpy as np
from flwr.supercore.primitives.asymmetric import generate_key_pairs, private_key_to_bytes, public_key_to_bytes

from common.secure.masks import expand, pair_mask, pair_seed


def pair() -> tuple[bytes, bytes]:
    secret, public = generate_key_pairs()
    return private_key_to_bytes(secret), public_key_to_bytes(public)


def test_both_sites_of_a_pair_share_a_seed_and_their_masks_cancel() -> None:
    (secret_a, public_a), (secret_b, public_b), (_, public_c) = pair(), pair(), pair()
    assert pair_seed(secret_a, public_b) == pair_seed(secret_b, public_a) != pair_seed(secret_a, public_c)
    total = pair_mask(secret_a, public_b, 1, 2, 1000) + pair_mask(secret_b, public_a, 2, 1, 1000)
    assert not total.any()


def test_the_stream_is_chacha20() -> None:
    # RFC 8439, appendix A.1, test vector 1: key, nonce and counter all zero.
    words = expand(bytes(32), 4)
    assert words.astype("<u4").tobytes() == bytes.fromhex("76b8e0ada0f13d90405d6ae55386bd28")


def test_every_bit_of_the_seed_counts() -> None:
    """Flower's generator folds 32 bytes to 4: swapping two words of the seed gives the same mask there."""
    seed = bytes(range(32))
    swapped = seed[4:8] + seed[:4] + seed[8:]
    assert not np.array_equal(expand(seed, 8), expand(swapped, 8))


def test_values_are_spread_over_all_words() -> None:
    words = expand(b"s" * 32, 200_000).astype(np.float64) / 2**32
    counts, _ = np.histogram(words, bins=64, range=(0, 1))
    chi2 = float(((counts - 3125) ** 2 / 3125).sum())
    assert 30 < chi2 < 110  # 63 degrees of freedom
