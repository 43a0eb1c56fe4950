"""Randomness of one patient alone, from the step and his row: no other patient's draws depend on his being there."""

import hashlib

import torch


def own_generator(site_seed: int, step: int, row: int) -> torch.Generator:
    """A generator for one patient in one step; the same in every run."""
    text = " ".join(map(str, (site_seed, step, row))).encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1)
