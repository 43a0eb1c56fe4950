"""Which patients of a site are held back from training, to calibrate the model that the others trained.

A hash of the patient's id alone decides: whoever joins or leaves the folder later, whatever the labels say, and whatever seed a
run has, nobody else changes sides. Sums over two hold-outs that differ by one patient would disclose that patient.

N patients.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import SiteData


def split(patients: SiteData, share: float) -> tuple[SiteData, SiteData]:
    """One site's training patients and those held back; of pooled sites each is split before they are pooled.

    Args:
        patients: of one site.
        share: of the patients that are held back, on average; 0: none, and `patients` comes back as it is.
    """
    held = held_back(patients.ids, share)
    training = patients.select(np.flatnonzero(~held)) if held.any() else patients
    return training, patients.select(np.flatnonzero(held))


def held_back(ids: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Which of one site's patients are held back [N]. Where that would be all of them, none is: the site trains."""
    held = np.array([_chance(patient) < share for patient in ids], bool)
    return np.zeros_like(held) if held.all() else held


def _chance(patient: str) -> float:
    """A number from 0 to 1, spread evenly over patients, that depends on nothing but the id."""
    digest = hashlib.sha256(f"held back/{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
