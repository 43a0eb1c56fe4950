"""The signal equations: spin echo, inversion recovery, gadolinium, receive field and Rician noise.

Times are in ms, concentrations in mM, relaxivities in 1/(mM s). Equations: Bernstein, King and Zhou, Handbook of MRI Pulse
Sequences (2004), chapter 14; Rician magnitude: Gudbjartsson and Patz, Magn Reson Med 1995;34:910.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.tissue import Values

Image = NDArray[np.floating[Any]]


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
    """A smooth receive field: exp of a polynomial of order three, scaled so that its log reaches `strength` at most.

    Args:
        axes: the mm positions along x, y, z.
        coefficients: [4, 4, 4] of the monomials x^i y^j z^k; those of order 0 or over 3 are left out, high orders damped.
        strength: largest size of the log field.

    Returns:
        [X, Y, Z], mean of the log 0.
    """
    order = np.indices((4, 4, 4)).sum(0)
    weights = np.where((order >= 1) & (order <= 3), coefficients / np.maximum(order, 1), 0.0)
    powers = [np.vander(axis / np.abs(axis).max(), 4, increasing=True) for axis in axes]
    log = np.einsum("ijk,xi,yj,zk->xyz", weights, *powers, optimize=True)
    log -= log.mean()
    field: Image = np.exp((log * (strength / np.abs(log).max())).astype(np.float32))
    return field


def rician(signal: Image, sigma: float, generator: np.random.Generator) -> Image:
    """Magnitude of a complex image with Gaussian noise of `sigma` in each channel."""
    real = generator.standard_normal(signal.shape, dtype=np.float32)
    imaginary = generator.standard_normal(signal.shape, dtype=np.float32)
    magnitude: Image = np.sqrt((signal + sigma * real) ** 2 + (sigma * imaginary) ** 2)
    return magnitude
