"""The apparent diffusion coefficient as a scanner computes it: two echo-planar images, without and with diffusion weighting.

S(b) = S(0) exp(-b ADC) (Stejskal and Tanner, J Chem Phys 1965;42:288), so ADC = ln(S(0) / S(b)) / b. The receive field cancels in
the ratio. Maps are in 10^-6 mm^2/s, as scanners store them in whole numbers.
"""

from dataclasses import replace

import numpy as np

from simulation.phantom.anatomy import Head
from simulation.phantom.lesion import CELLULAR, Growth
from simulation.phantom.noise_field import Array
from simulation.phantom.scanner import B_VALUES, Scanner, brain_mask, clean_image, normal_signal
from simulation.phantom.signal import rician

CELLULARITY = 0.12  # spread of a tumour's log ADC from patient to patient: the subtypes overlap (AUC 0.9, Thust et al. 2018)
TOP = 4000.0  # 10^-6 mm^2/s; more is noise


def sample_density(generator: np.random.Generator, growth: Growth) -> Growth:
    """The same tumour, its solid tissue and rim more or less dense with cells, which hinder diffusion."""
    factor = float(generator.lognormal(0.0, CELLULARITY))
    count = len(CELLULAR)
    dense = tuple(replace(part, adc=part.adc * factor) for part in growth.compartments[:count])
    return replace(growth, compartments=dense + growth.compartments[count:])


def adc_map(unweighted: Array, weighted: Array) -> Array:
    """ADC in 10^-6 mm^2/s from the images of the two `B_VALUES`, both above 0."""
    b = B_VALUES["b1000"] - B_VALUES["b0"]
    return np.asarray(np.log(unweighted / weighted) / b * 1e6)


def acquire_adc(generator: np.random.Generator, scanner: Scanner, head: Head, growth: Growth) -> Array:
    """The map [X, Y, Z] of one patient, skull-stripped: zero outside the brain, at least 1 inside."""
    brain, growth = brain_mask(head), sample_density(generator, growth)
    scale = np.float32(1.0 / normal_signal(scanner, "b0", "white"))
    clean = [clean_image(scanner, name, head, growth)[brain] * scale for name in B_VALUES]
    noisy = [np.maximum(rician(image, 1.0 / scanner.snr, generator), 1e-6) for image in clean]
    image = np.zeros(brain.shape, np.float32)
    image[brain] = np.clip(adc_map(*noisy), 1.0, TOP)
    return image
