"""Gliomas: what radiology says of the three subtypes, as distributions, geometry and tissue.

Frequencies are from the literature, not from any training result, and every property varies by degree, so the subtypes overlap:
- T2-FLAIR mismatch, astrocytoma: pooled sensitivity about 42%, 30 to 55% or more in single series, specificity near 100%
  (Jain et al., Neuro-Oncology 2020;22:936; Ozono et al., J Neurooncol 2024;169:571); here strong in 55%, weaker in the rest.
- Enhancement: nearly all glioblastomas, but not 10 to 15% of IDH-wildtype gliomas; 15 to 25% of IDH-mutant astrocytomas faintly;
  30 to 50% of oligodendrogliomas, patchy (Smits and van den Bent, Radiology 2017;284:316; Smits, Br J Radiol 2016;89:20150857).
- Calcification: up to 70 to 90% of oligodendrogliomas on CT, under 10% of the others; cortical, frontal, blurred edge,
  heterogeneous T2 (Koeller and Rushing, RadioGraphics 2005;25:1669; Johnson et al., AJNR 2017;38:678).
- Age: IDH-mutant astrocytomas 36 to 37 years (Reuss et al., Acta Neuropathol 2015;129:867), glioblastomas 65 in the median, the
  peak of oligodendrogliomas between 40 and 44 (CBTRUS, Ostrom et al., Neuro-Oncology 2022;24(S5):v1); here 38, 60 and 44, with
  spreads of ten years. Sex: 55% men in every subtype, so that it tells nothing.
P = voxels inside the head, K = those of the lesion.
"""

from dataclasses import dataclass

import numpy as np

from simulation.phantom.anatomy import Axes, Head
from simulation.phantom.noise_field import Array, grid_field
from simulation.phantom.shapes import length
from simulation.phantom.tissue import SOLID, TISSUES, Compartment

SUBTYPES = ("idh-mutant-astrocytoma", "idh-wildtype", "oligodendroglioma")

# Centres of the lobes on the right, anatomical mm: deep (white matter) position; the cortical one lies further out.
LOBES = {
    "frontal": (25.0, 38.0, 26.0),
    "temporal": (40.0, -8.0, -12.0),
    "parietal": (28.0, -36.0, 36.0),
    "insular": (32.0, 10.0, 6.0),
    "occipital": (24.0, -64.0, 12.0),
}
LOBE_SHARES = {
    "idh-mutant-astrocytoma": (0.46, 0.26, 0.13, 0.12, 0.03),
    "idh-wildtype": (0.34, 0.30, 0.22, 0.06, 0.08),
    "oligodendroglioma": (0.62, 0.15, 0.15, 0.06, 0.02),
}
AGES = {
    "idh-mutant-astrocytoma": (38.0, 10.0),
    "idh-wildtype": (60.0, 11.0),
    "oligodendroglioma": (44.0, 11.0),
}


CELLULAR = ("solid", "rim")
"""The compartments of living tumour, which come first in `Growth.compartments`."""


@dataclass(frozen=True)
class Lesion:
    """One patient's tumour; all that distinguishes the subtypes stands here as a number.

    Args:
        centre: mm in scan coordinates.
        radius: mm of the solid mass, [3] along x, y, z.
        roughness: mm that the surface strays.
        edge: mm over which the mass passes into brain.
        mismatch: 0 to 1, how microcystic the core is.
        heterogeneity: spread of log T1 and log T2 inside.
        oedema: mm that oedema reaches beyond the mass.
        necrosis: share of the radius that is necrotic.
        rim: mm of the enhancing wall around it.
        ring, patches: mM of gadolinium in the wall, and in patches.
        calcification: 0 to 1, amount.
        mass_effect: 0 to 0.5, see `anatomy.push_away`.
    """

    subtype: str
    centre: tuple[float, float, float]
    radius: tuple[float, float, float]
    roughness: float
    edge: float
    mismatch: float
    heterogeneity: float
    oedema: float
    necrosis: float
    rim: float
    ring: float
    patches: float
    calcification: float
    mass_effect: float

    @property
    def size(self) -> float:
        """Mean radius in mm."""
        return float(np.prod(self.radius) ** (1 / 3))


def sample_age(generator: np.random.Generator, subtype: str) -> float:
    """Age in years at diagnosis."""
    mean, spread = AGES[subtype]
    return float(np.clip(round(generator.normal(mean, spread)), 18, 88))


def sample_lesion(generator: np.random.Generator, subtype: str) -> Lesion:
    """Draw one tumour of a subtype."""
    wildtype, oligo = subtype == "idh-wildtype", subtype == "oligodendroglioma"
    astro = not wildtype and not oligo
    size = float(np.clip(generator.lognormal(np.log(19.0 if wildtype else 21.0), 0.22), 11.0, 31.0))
    stretch = np.exp(generator.normal(0.0, 0.12, 3))
    enhancing = generator.random() < {"idh-wildtype": 0.87, "oligodendroglioma": 0.40}.get(subtype, 0.20)
    ring = wildtype and enhancing
    uniform, lognormal = generator.uniform, generator.lognormal
    low, high = (0.75, 1.0) if astro and generator.random() < 0.55 else (0.1, 0.7) if astro else (0.0, 0.4)
    calcified = generator.random() < (0.72 if oligo else 0.06)
    return Lesion(
        subtype=subtype,
        centre=_place(generator, subtype, size),
        radius=tuple(float(r) for r in size * stretch / np.prod(stretch) ** (1 / 3)),  # type: ignore[arg-type]
        roughness=float(lognormal(np.log(3.2 if wildtype else 2.4 if oligo else 1.8), 0.35)),
        edge=float(lognormal(np.log(2.2 if astro else 3.0), 0.4)),
        mismatch=float(uniform(low, high)),
        heterogeneity=float(np.clip(lognormal(np.log(0.08 if astro else 0.18), 0.45), 0.02, 0.5)),
        oedema=float(np.clip(lognormal(np.log(11.0 if ring else 4.0), 0.5), 0.5, 24.0)),
        necrosis=float(uniform(0.25, 0.85)) if ring and generator.random() < 0.85 else 0.0,
        rim=float(uniform(3.0, 7.0)),
        ring=float(lognormal(np.log(0.45), 0.5)) if ring else 0.0,
        patches=float(lognormal(np.log(0.10 if astro else 0.20), 0.5)) if enhancing and not ring else 0.0,
        calcification=float(uniform(0.2, 1.0)) if calcified else 0.0,
        mass_effect=float(uniform(0.1, 0.35)),
    )


def _place(generator: np.random.Generator, subtype: str, size: float) -> tuple[float, float, float]:
    """A centre in one lobe; oligodendroglioma is drawn towards the cortex, the others lie at any depth."""
    lobe = tuple(LOBES.values())[int(generator.choice(len(LOBES), p=LOBE_SHARES[subtype]))]
    side = -1.0 if generator.random() < 0.5 else 1.0
    outward = generator.normal({"oligodendroglioma": 1.24, "idh-wildtype": 1.02}.get(subtype, 1.08), 0.11)
    x, y, z = np.array(lobe) * np.clip(outward, 0.8, 1.4) + generator.normal(0.0, 5.0, 3)
    # The mass stays on its side: it may reach the midline, not sit on it.
    return side * float(max(x, 0.75 * size)), float(y), float(z)


@dataclass(frozen=True)
class Growth:
    """A lesion grown into a head.

    Args:
        shares: the normal tissues that are left, name to [P].
        compartments: the tumour's own tissues.
        tumour: [P] share of mass and oedema together, what an annotator outlines as the whole tumour.
        maps: name to [P] of single parts, for figures and tests: core, rim, necrosis, oedema, calcification.
    """

    shares: dict[str, Array]
    compartments: tuple[Compartment, ...]
    tumour: Array
    maps: dict[str, Array]


def grow_lesion(generator: np.random.Generator, axes: Axes, head: Head, lesion: Lesion, field: float) -> Growth:
    """Put a lesion into a head, at `field` tesla."""
    at = head.index
    rough, texture, patch, grain = (
        grid_field(generator, axes, spacing).ravel()[at] for spacing in (0.55 * lesion.size, 7.0, 9.0, 4.5)
    )
    inside = _distance(head.points, lesion) + lesion.roughness * rough
    fluid, grey = head.shares["csf"] + head.shares["blood"], head.shares["grey"] + head.shares["deep-grey"]
    open_fluid = fluid * np.clip(1.0 - inside / 6.0, 0.25, 1.0)  # sulci within the mass are effaced, ventricles displaced
    mass = _ramp(inside, lesion.edge) * (1.0 - open_fluid)
    # Oedema spreads along white matter and spares the cortex.
    reach = inside + lesion.oedema + 2.5 * texture * min(1.0, lesion.oedema / 8.0)
    oedema = _ramp(reach, 4.0) * (1.0 - mass) * (head.shares["white"] + 0.15 * grey)
    left = np.where(mass > 0, np.clip(1.0 - mass - oedema, 0.0, 1.0), 1.0 - oedema)
    left = np.asarray(left / sum(head.shares.values()), np.float32)
    shares = {name: share * left for name, share in head.shares.items()}
    parts = _parts(inside, lesion, texture, patch, grain)
    maps: dict[str, Array] = {"oedema": oedema}
    maps.update((name, mass * part) for name, part in parts.items())
    compartments = _compartments(lesion, maps, parts, texture, grain, patch, field)
    tumour: Array = (mass + oedema).astype(np.float32)
    return Growth(shares, compartments, tumour, maps)


def _distance(points: Array, lesion: Lesion) -> Array:
    """[P] mm inside the smooth mass, negative outside."""
    offset = (points - np.array(lesion.centre, np.float32)[:, None]) / np.array(lesion.radius, np.float32)[:, None]
    result: Array = (1.0 - length(*offset)) * np.float32(lesion.size)
    return result


def _ramp(distance: Array, width: float) -> Array:
    result: Array = np.clip(distance / width + 0.5, 0.0, 1.0).astype(np.float32)
    return result


def _parts(inside: Array, lesion: Lesion, texture: Array, patch: Array, grain: Array) -> dict[str, Array]:
    """Divide the mass: necrosis, rim, calcification and solid sum to one; core is the microcystic share of the solid."""
    wall = (1.0 - lesion.necrosis) * lesion.size  # mm from the surface to the necrosis
    necrosis = _ramp(inside - wall + 1.5 * texture, 2.0) if lesion.necrosis else np.zeros_like(inside)
    rim = np.zeros_like(inside)
    if lesion.ring:
        thickness = lesion.rim * np.clip(1.0 + 0.45 * patch, 0.3, 2.0)  # irregular, nodular
        middle = wall - 0.5 * lesion.rim if lesion.necrosis else 0.5 * lesion.size
        spread = thickness / 2 if lesion.necrosis else 0.45 * lesion.size + 0 * thickness
        rim = _ramp(spread - np.abs(inside - middle + 1.5 * texture), 1.5) * (1.0 - necrosis)
    specks = np.clip(2.5 * (grain + 0.6 * patch - 2.8 + 1.1 * lesion.calcification), 0.0, 1.0)
    calcium = specks * (lesion.calcification > 0) * (1.0 - necrosis) * (1.0 - rim) * (inside > 1.5)
    solid = 1.0 - necrosis - rim - calcium
    core = _ramp(inside - 3.5 + 0.8 * texture, 3.0)
    return {"necrosis": necrosis, "rim": rim, "calcification": calcium, "solid": solid, "core": core}


def _compartments(
    lesion: Lesion, maps: dict[str, Array], parts: dict[str, Array], texture: Array, grain: Array, patch: Array, field: float
) -> tuple[Compartment, ...]:
    """The lesion's tissues with their relaxation times and ADC; solid tissue and rim vary from voxel to voxel."""
    plain, cyst = TISSUES[SOLID[lesion.subtype]], TISSUES["microcystic"]
    result = []
    for name in CELLULAR:
        where = np.flatnonzero(maps[name] > 0)
        mixed = lesion.mismatch * parts["core"][where] if name == "solid" else 0.0
        vary = np.exp(lesion.heterogeneity * np.clip(0.8 * texture[where] + 0.5 * grain[where], -2.5, 2.5))
        t1 = plain.t1(field) ** (1.0 - mixed) * cyst.t1(field) ** mixed * vary
        t2 = plain.t2 ** (1.0 - mixed) * cyst.t2**mixed * vary**1.5
        patchy = lesion.patches * np.clip(patch[where] - 0.4, 0.0, 1.5) / 1.5
        gadolinium = patchy if name == "solid" else lesion.ring * np.clip(1.0 + 0.25 * grain[where], 0.2, 2.0)
        pd = plain.pd + (cyst.pd - plain.pd) * mixed
        adc = plain.adc ** (1.0 - mixed) * cyst.adc**mixed * vary  # where cells are few, T1, T2 and ADC are high
        result.append(Compartment(where, maps[name][where], t1, t2, pd, adc, gadolinium))
    for name in ("necrosis", "oedema", "calcification"):
        where, tissue = np.flatnonzero(maps[name] > 0), TISSUES[name]
        result.append(Compartment(where, maps[name][where], tissue.t1(field), tissue.t2, tissue.pd, tissue.adc))
    return tuple(result)
