"""Relaxation times, proton densities and diffusion coefficients of the tissues in a phantom head.

Normal brain, T1: at 1.5 T Rooney et al., Magn Reson Med 2007;57:308 (white 656, cortical grey 1188, CSF about 4.3 s); at 3 T
Wansapura et al., J Magn Reson Imaging 1999;9:531 (white 832, grey 1331). T2 and blood: Stanisz et al., Magn Reson Med
2005;54:507. Proton densities relative to water: Whittall et al., Magn Reson Med 1997;37:34.

Glioma: T2-FLAIR mismatch goes with extremely long T1 and T2 of the microcystic core, matched lesions have moderate values and
IDH-wildtype ones shorter: Kinoshita et al., Neuro-Oncol Adv 2021;3:vdab010. Oedema and solid tumour T2 of 140 to 180 ms: Oh et
al., J Magn Reson Imaging 2005;21:701. Values between the published ones are rounded and ours.

Apparent diffusion coefficients (ADC), normal brain: Helenius et al., AJNR 2002;23:194 (means of 80 people at b = 0 and 1000
s/mm^2); CSF near free water at 37 degrees Celsius, 3.0 x 10^-3 mm^2/s (Holz et al., Phys Chem Chem Phys 2000;2:4740). Glioma:
IDH-wildtype lowest, told by a mean below 1201 x 10^-6 mm^2/s with a sensitivity of 83%, and 1p/19q-intact above codeleted among
the IDH-mutant: Thust et al., Eur Radiol 2018;28:3779. In vasogenic oedema and necrosis water moves more freely. Between, ours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = float | NDArray[np.floating[Any]]
"""One number, or one for each voxel."""


@dataclass(frozen=True)
class Tissue:
    """T1 and T2 in ms, proton density relative to water, ADC in 10^-6 mm^2/s."""

    t1_low: float  # at 1.5 T
    t1_high: float  # at 3 T
    t2: float
    pd: float
    adc: float

    def t1(self, field: float) -> float:
        """T1 in ms at `field` tesla: a straight line in log T1 over log B0 through the two tabled values.

        Tissue T1 grows by a power of the field (Bottomley et al., Med Phys 1984;11:425).
        """
        share = float(np.log(field / 1.5) / np.log(2.0))
        return float(self.t1_low * (self.t1_high / self.t1_low) ** share)


TISSUES = {
    "csf": Tissue(4300.0, 4300.0, 2000.0, 1.00, 3000.0),
    "grey": Tissue(1188.0, 1331.0, 97.0, 0.82, 890.0),
    "white": Tissue(656.0, 832.0, 71.0, 0.70, 700.0),
    "deep-grey": Tissue(960.0, 1180.0, 80.0, 0.80, 750.0),
    "blood": Tissue(1440.0, 1930.0, 60.0, 0.75, 1500.0),  # T2 shortened: moving spins partly leave the slice before the echo
    "oedema": Tissue(1150.0, 1400.0, 145.0, 0.84, 1400.0),
    "solid": Tissue(1300.0, 1600.0, 150.0, 0.86, 1500.0),
    "solid-codeleted": Tissue(1300.0, 1600.0, 150.0, 0.86, 1320.0),
    "solid-wildtype": Tissue(1200.0, 1480.0, 130.0, 0.84, 1080.0),
    "microcystic": Tissue(2900.0, 3200.0, 420.0, 0.95, 1900.0),
    "necrosis": Tissue(2300.0, 2600.0, 280.0, 0.93, 2100.0),
    "calcification": Tissue(700.0, 900.0, 18.0, 0.25, 700.0),
}

SOLID = {
    "idh-mutant-astrocytoma": "solid",
    "idh-wildtype": "solid-wildtype",
    "oligodendroglioma": "solid-codeleted",
}
"""The solid tumour tissue of each subtype."""


@dataclass(frozen=True)
class Compartment:
    """What fills a share of some voxels. K = voxels it is found in, out of the P voxels of the head.

    Args:
        where: [K] positions among the P voxels.
        share: [K] volume fraction, 0 to 1.
        t1, t2: ms, one number or [K].
        pd: relative proton density, one number or [K].
        adc: apparent diffusion coefficient in 10^-6 mm^2/s, one number or [K].
        gadolinium: mM after the injection, one number or [K]; 0 where the blood-brain barrier holds.
    """

    where: NDArray[np.intp]
    share: NDArray[np.floating[Any]]
    t1: Values
    t2: Values
    pd: Values
    adc: Values
    gadolinium: Values = 0.0
