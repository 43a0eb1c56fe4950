"""One patient's random draws, from the step and the patient's row: independent of whether any other patient takes part."""

import hashlib

import torch


def own_generator(site_seed: int, step: int, row: int) -> torch.Generator:
    """A generator for one patient in one step; the same in every run."""
    text = " ".join(map(str, (site_seed, step, row))).encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1)
