"""The WHO grade of a phantom's tumour, drawn by what is seen of it.

Which grades there are: oligodendroglioma 2 and 3, IDH-mutant astrocytoma 2 to 4, IDH-wildtype glioblastoma 4 (Louis et al.,
WHO classification 2021, Neuro-Oncology 2021;23:1231). Enhancement goes with a higher grade, and is neither needed nor proof
(Smits and van den Bent, Radiology 2017;284:316); the shares are ours.
"""

import numpy as np

from simulation.phantom.lesion import Lesion

GRADES = ("2", "3", "4")
SHARES = {  # of GRADES: without enhancement, and with
    "idh-mutant-astrocytoma": ((0.75, 0.22, 0.03), (0.08, 0.37, 0.55)),
    "idh-wildtype": ((0.0, 0.0, 1.0), (0.0, 0.0, 1.0)),
    "oligodendroglioma": ((0.85, 0.15, 0.0), (0.20, 0.80, 0.0)),
}


def sample_grade(generator: np.random.Generator, lesion: Lesion) -> str:
    """One of `GRADES`."""
    enhances = lesion.ring > 0 or lesion.patches > 0
    return GRADES[int(generator.choice(len(GRADES), p=SHARES[lesion.subtype][enhances]))]
