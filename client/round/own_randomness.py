"""The site's own randomness in a secure round, so that nobody outside can have one update made twice.

A sum over some sites, and one over fewer of them for the same training, differ by exactly what the others sent. The gate refuses
to train twice on the same request (`client.gate.replay_guard`), but a learning rate that differs by 1e-9 is another request. So a
deployed site that sends masked updates only draws order, slices, views and dropout from its operating system, not from the run's
seed, and leaves out some patients, drawn anew each time: even a head round on features, which draws nothing else, then differs.
This blurs a difference and proves nothing: a proof needs `privacy.enabled`, whose rounds draw all of their own anyway.
"""

import os

import numpy as np

from common.data.dataset import SiteData

LEFT_OUT = 0.1  # of the patients, on average


def own_seed() -> int:
    """A seed that nobody else knows, 0 to 2^31 - 1."""
    return int.from_bytes(os.urandom(4)) >> 1


def own_patients(patients: SiteData) -> SiteData:
    """Those who train this time: each stays out by chance, one at least where there are several, but never all do.

    Of few patients it would often be nobody, and two draws of nobody are the same.
    """
    drawn = np.frombuffer(os.urandom(8 * len(patients)), np.uint64) / 2.0**64
    out = drawn < max(LEFT_OUT, drawn.min() * (1 + 1e-12))
    rows = np.flatnonzero(~out)
    return patients.select(rows if len(rows) else np.array([drawn.argmax()]))
