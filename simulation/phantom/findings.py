"""What a phantom's tumour is and shows, as findings of yes or no; some are not known, as at hospitals.

IDH and 1p/19q follow from the subtype (Louis et al., WHO classification 2021, Neuro-Oncology 2021;23:1231).
"""

import numpy as np

from simulation.phantom.lesion import Lesion

FINDINGS = ("idh_mutant", "codeleted_1p19q", "enhancing")  # columns of participants.tsv
UNKNOWN = 0.15  # chance that one is not known of a patient


def sample_findings(generator: np.random.Generator, lesion: Lesion) -> tuple[str, ...]:
    """A word for each of `FINDINGS`: yes, no or n/a."""
    there = (lesion.subtype != "idh-wildtype", lesion.subtype == "oligodendroglioma", lesion.ring > 0 or lesion.patches > 0)
    unknown = generator.random(len(FINDINGS)) < UNKNOWN
    return tuple("n/a" if gap else "yes" if one else "no" for one, gap in zip(there, unknown, strict=True))
