"""Scanners: field, timing, voxels, receive field and noise; and how one turns a head into images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.anatomy import Axes, Head
from simulation.phantom.lesion import Growth
from simulation.phantom.noise_field import Array
from simulation.phantom.signal import bias_field, inversion_recovery, null_inversion_time, rician, spin_echo, with_gadolinium
from simulation.phantom.tissue import TISSUES, Compartment, Values

SUBSLICES = 3  # thin layers that a thick slice averages
B_VALUES = {"b0": 0.0, "b1000": 1000.0}  # s/mm^2 of the images that the ADC comes from
ECHO_PLANAR = (5000.0, 85.0)  # TR and TE of those in ms, at every site
VESSEL_GADOLINIUM = 1.2  # mM in blood some minutes after 0.1 mmol/kg


@dataclass(frozen=True)
class Scanner:
    """One site's protocol.

    Args:
        field: tesla.
        t1w, t2w: TR and TE in ms.
        flair: TR and TE in ms; TI nulls fluid, off by `ti_error` ms.
        voxel: mm along x, y, z; z is the slice thickness.
        bias: largest size of the log receive field.
        snr: white matter's signal over the noise of one channel, in every modality.
    """

    field: float
    t1w: tuple[float, float]
    t2w: tuple[float, float]
    flair: tuple[float, float]
    ti_error: float
    voxel: tuple[float, float, float]
    bias: float
    snr: float

    @property
    def inversion_time(self) -> float:
        """TI of the FLAIR in ms."""
        tr, te = self.flair
        return null_inversion_time(TISSUES["csf"].t1(self.field), tr=tr, te=te) + self.ti_error

    @property
    def relaxivity(self) -> tuple[float, float]:
        """r1 and r2 of gadopentetate in plasma, 1/(mM s), at 1.5 or 3 T (Rohrer et al., Invest Radiol 2005;40:715)."""
        return (4.1, 4.6) if self.field < 2.0 else (3.7, 5.2)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels that cover 168 x 204 x 140 mm, a brain with a margin."""
        x, y, z = self.voxel
        return 2 * round(84.0 / x), 2 * round(102.0 / y), 2 * round(70.0 / z)

    @property
    def affine(self) -> NDArray[np.float64]:
        """[4, 4] from voxel indices to RAS mm, the head's centre at the origin."""
        affine = np.diag([*self.voxel, 1.0])
        affine[:3, 3] = [-(n - 1) / 2 * size for n, size in zip(self.shape, self.voxel, strict=True)]
        return affine

    def axes(self, layers: int = 1) -> Axes:
        """mm positions of voxel centres along x, y, z, each slice cut into `layers`."""
        counts = (self.shape[0], self.shape[1], self.shape[2] * layers)
        sizes = (self.voxel[0], self.voxel[1], self.voxel[2] / layers)
        x, y, z = ((np.arange(n) - (n - 1) / 2) * size for n, size in zip(counts, sizes, strict=True))
        return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)


@dataclass(frozen=True)
class Scan:
    """Images [X, Y, Z] by modality, and the tumour mask [X, Y, Z]."""

    images: dict[str, Array]
    mask: NDArray[np.bool_]


def tissue_signal(scanner: Scanner, modality: str, part: Compartment) -> Values:
    """The signed signal of one compartment in one modality, or in one of `B_VALUES`: a number, or [K]."""
    t1, t2, pd = part.t1, part.t2, part.pd
    if modality in B_VALUES:
        tr, te = ECHO_PLANAR
        weighted: Values = spin_echo(t1, t2, pd, tr=tr, te=te) * np.exp(-B_VALUES[modality] * 1e-6 * part.adc)
        return weighted
    if modality == "flair":
        tr, te = scanner.flair
        return inversion_recovery(t1, t2, pd, tr=tr, te=te, ti=scanner.inversion_time)
    if modality == "t1c":
        r1, r2 = scanner.relaxivity
        t1, t2 = with_gadolinium(t1, part.gadolinium, r1), with_gadolinium(t2, part.gadolinium, r2)
    tr, te = scanner.t2w if modality == "t2" else scanner.t1w
    return spin_echo(t1, t2, pd, tr=tr, te=te)


def normal_signal(scanner: Scanner, modality: str, name: str) -> float:
    """The signed signal of a voxel full of one normal tissue; vessels alone take up gadolinium."""
    tissue = TISSUES[name]
    gadolinium = VESSEL_GADOLINIUM if name == "blood" else 0.0
    nowhere, t1 = np.zeros(0, np.intp), tissue.t1(scanner.field)
    everywhere = Compartment(nowhere, np.zeros(0), t1, tissue.t2, tissue.pd, tissue.adc, gadolinium)
    return float(tissue_signal(scanner, modality, everywhere))


def clean_image(scanner: Scanner, modality: str, head: Head, growth: Growth) -> Array:
    """The noiseless magnitude [X, Y, Z] on the thick slices: signals of all parts of a voxel summed, then the magnitude."""
    signal = np.zeros(head.index.size, np.float32)
    for name, share in growth.shares.items():
        signal += share * np.float32(normal_signal(scanner, modality, name))
    for part in growth.compartments:
        signal[part.where] += part.share * tissue_signal(scanner, modality, part)
    return np.abs(thick_slices(signal, head))


def thick_slices(values: Array, head: Head) -> Array:
    """Put [P] values on the fine grid and average the layers of each slice: [X, Y, Z]."""
    fine = np.zeros(int(np.prod(head.shape)), np.float32)
    fine[head.index] = values
    x, y, z = head.shape
    result: Array = fine.reshape(x, y, z // SUBSLICES, SUBSLICES).mean(-1)
    return result


def brain_mask(head: Head) -> NDArray[np.bool_]:
    """[X, Y, Z] on the thick slices: voxels that are brain for the most part."""
    return np.asarray(thick_slices(np.ones(head.index.size, np.float32), head) > 0.5)


def acquire(generator: np.random.Generator, scanner: Scanner, head: Head, growth: Growth, modalities: tuple[str, ...]) -> Scan:
    """Scan one patient, skull-stripped, in arbitrary receiver units.

    Returns:
        Images of `modalities` (t1, t1c, t2, flair) that share one grid, zero outside the brain.
    """
    brain = brain_mask(head)
    coil = generator.normal(size=(4, 4, 4))
    images = {}
    for modality in modalities:
        clean = clean_image(scanner, modality, head, growth)[brain]
        field = bias_field(scanner.axes(), coil + generator.normal(0.0, 0.2, (4, 4, 4)), scanner.bias)[brain]
        scale = np.float32(1.0 / abs(normal_signal(scanner, modality, "white")))
        image = np.zeros(brain.shape, np.float32)
        image[brain] = rician(clean * field * scale, 1.0 / scanner.snr, generator) * np.float32(generator.uniform(150.0, 400.0))
        images[modality] = image
    return Scan(images, (thick_slices(growth.tumour, head) > 0.5) & brain)
