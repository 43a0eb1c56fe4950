"""The signal equations: spin echo, inversion recovery, gadolinium, receive field and Rician noise.

Times are in ms, concentrations in mM, relaxivities in 1/(mM s). Equations: Bernstein, King and Zhou, Handbook of MRI Pulse
Sequences (2004), chapter 14; Rician magnitude: Gudbjartsson and Patz, Magn Reson Med 1995;34:910.
"""

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.tissue import Values

Image = NDArray[np.float32]


def spin_echo(t1: Values, t2: Values, pd: Values, *, tr: float, te: float) -> Values:
    """Spin echo: `PD (1 - 2 exp(-(TR - TE/2)/T1) + exp(-TR/T1)) exp(-TE/T2)`."""
    longitudinal = 1.0 - 2.0 * np.exp(-(tr - te / 2) / t1) + np.exp(-tr / t1)
    signal: Values = pd * longitudinal * np.exp(-te / t2)
    return signal


def inversion_recovery(t1: Values, t2: Values, pd: Values, *, tr: float, te: float, ti: float) -> Values:
    """Inversion-recovery spin echo, signed: `PD (1 - 2 exp(-TI/T1) + 2 exp(-(TR - TE/2)/T1) - exp(-TR/T1)) exp(-TE/T2)`.

    The magnitude is taken later, of the whole voxel: the parts of a mixed voxel cancel before that.
    """
    longitudinal = 1.0 - 2.0 * np.exp(-ti / t1) + 2.0 * np.exp(-(tr - te / 2) / t1) - np.exp(-tr / t1)
    signal: Values = pd * longitudinal * np.exp(-te / t2)
    return signal


def null_inversion_time(t1: float, *, tr: float, te: float) -> float:
    """The TI at which a tissue of `t1` gives no signal; `t1 ln 2` for long TR."""
    rest = 1.0 + 2.0 * np.exp(-(tr - te / 2) / t1) - np.exp(-tr / t1)
    return float(t1 * np.log(2.0 / rest))


def with_gadolinium(time: Values, concentration: Values, relaxivity: float) -> Values:
    """T1 or T2 in the presence of a contrast agent: `1/T = 1/T0 + r C`."""
    shortened: Values = 1.0 / (1.0 / time + relaxivity * concentration / 1000.0)
    return shortened


def bias_field(axes: tuple[Image, Image, Image], coefficients: NDArray[np.float64], strength: float) -> Image:
    """A smooth receive field: exp of a polynomial of order three, scaled so that its log runs over about +-`strength`.

    Args:
        axes: the mm positions along x, y, z.
        coefficients: [16] of the monomials of order 1 to 3 with at most order 3 in all.
        strength: largest size of the log field.

    Returns:
        [X, Y, Z], mean of the log 0.
    """
    x, y, z = np.meshgrid(*(axis / np.abs(axis).max() for axis in axes), indexing="ij", sparse=True)
    orders = [(i, j, k) for i in range(4) for j in range(4) for k in range(4) if 1 <= i + j + k <= 3]
    log = sum(c / sum(o) * x ** o[0] * y ** o[1] * z ** o[2] for c, o in zip(coefficients, orders, strict=False))
    log = log - log.mean()
    field: Image = np.exp(log * strength / np.abs(log).max()).astype(np.float32)
    return field


def rician(signal: Image, sigma: float, generator: np.random.Generator) -> Image:
    """Magnitude of a complex image with Gaussian noise of `sigma` in each channel."""
    real = generator.standard_normal(signal.shape, dtype=np.float32)
    imaginary = generator.standard_normal(signal.shape, dtype=np.float32)
    magnitude: Image = np.hypot(signal + sigma * real, sigma * imaginary)
    return magnitude
