"""Which hospitals there are: scanner, class mix, missing modalities, labels."""

from dataclasses import dataclass, replace

import numpy as np

from common.config.modalities import DEFAULT_MODALITIES
from simulation.phantom.broken import FAULTS
from simulation.phantom.lesion import SUBTYPES
from simulation.phantom.scanner import Scanner

EXTERNAL = 1_000_000  # the external hospital's number, out of reach of any training site's


@dataclass(frozen=True)
class Hospital:
    """One site.

    Args:
        number: stands in the seed of its patients.
        mix: share of each of `SUBTYPES`.
        missing: modality to the chance that a patient lacks it; 1: never done here.
        labelled: whether participants.tsv tells the subtype.
        fault: of `simulation.phantom.broken`, in every patient; "": none.
    """

    number: int
    name: str
    scanner: Scanner
    mix: tuple[float, float, float]
    missing: dict[str, float]
    labelled: bool
    fault: str = ""

    @property
    def folder(self) -> str:
        """Where it is written, under the folder of all hospitals."""
        return f"broken/{self.name}" if self.fault else self.name

    def draw_modalities(self, generator: np.random.Generator) -> tuple[str, ...]:
        """The modalities one patient has, at least one, in the order of `DEFAULT_MODALITIES`."""
        chances = generator.random(len(DEFAULT_MODALITIES))
        present = [m for m, chance in zip(DEFAULT_MODALITIES, chances, strict=True) if chance >= self.missing.get(m, 0.0)]
        done_here = [m for m in DEFAULT_MODALITIES if self.missing.get(m, 0.0) < 1.0]
        return tuple(present) or (done_here[int(generator.integers(len(done_here)))],)


SCANNERS = (
    Scanner(1.5, (500.0, 12.0), (4200.0, 95.0), (9000.0, 118.0), 0.0, (1.8, 1.8, 4.6), 0.18, 28.0),
    Scanner(3.0, (600.0, 9.0), (5000.0, 100.0), (9500.0, 125.0), -80.0, (1.7, 1.7, 4.2), 0.30, 40.0),
    Scanner(1.5, (620.0, 16.0), (3600.0, 108.0), (8000.0, 105.0), 60.0, (2.0, 2.0, 5.0), 0.12, 20.0),
    Scanner(3.0, (520.0, 11.0), (4600.0, 84.0), (10000.0, 95.0), 0.0, (1.9, 1.9, 4.8), 0.26, 32.0),
)
MIXES = ((0.60, 0.15, 0.25), (0.30, 0.70, 0.00), (0.20, 0.20, 0.60), (0.30, 0.40, 0.30))
MISSING: tuple[dict[str, float], ...] = (
    {"t1": 0.05, "t2": 0.05},
    {"t2": 1.0, "flair": 0.05},
    {"t1c": 0.30, "t1": 0.05},
    {"t1": 0.25, "flair": 0.10},
)
EXTERNAL_HOSPITAL = Hospital(
    EXTERNAL,
    "external",
    Scanner(3.0, (550.0, 14.0), (4000.0, 90.0), (9200.0, 110.0), 40.0, (1.75, 1.75, 4.4), 0.22, 26.0),
    (0.36, 0.34, 0.30),
    {"t1": 0.05, "t1c": 0.03, "t2": 0.05},
    labelled=True,
)


def hospital(seed: int, number: int, *, labelled: bool) -> Hospital:
    """The hospital of a number: the first four and the external one are fixed, later ones are drawn from the seed."""
    if number == EXTERNAL:
        return EXTERNAL_HOSPITAL
    name = f"hospital-{_letters(number)}"
    if number < len(SCANNERS):
        return Hospital(number, name, SCANNERS[number], MIXES[number], MISSING[number], labelled)
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    first, second, third = generator.dirichlet((1.5, 1.5, 1.5))
    lacking = {m: float(generator.choice((0.0, 0.05, 0.3))) for m in DEFAULT_MODALITIES}
    return Hospital(number, name, draw_scanner(generator), (first, second, third), lacking, labelled)


def broken_hospitals() -> list[Hospital]:
    """For each fault a hospital like the external one, with other patients."""
    places = enumerate(FAULTS, start=EXTERNAL + 1)
    return [replace(EXTERNAL_HOSPITAL, number=number, name=fault, fault=fault) for number, fault in places]


def label_sequence(site: Hospital, count: int) -> list[str]:
    """The subtypes of the first `count` patients: each in turn the one that is furthest behind its share.

    So every prefix keeps the site's mix as closely as whole patients can, and a patient's subtype
    does not depend on how many follow.
    """
    counts = np.zeros(len(SUBTYPES))
    labels = []
    for number in range(1, count + 1):
        chosen = int(np.argmax(np.array(site.mix) * number - counts))
        counts[chosen] += 1
        labels.append(SUBTYPES[chosen])
    return labels


def draw_scanner(generator: np.random.Generator) -> Scanner:
    """A scanner with a protocol of ordinary clinical values."""
    plane = float(generator.uniform(1.6, 2.0))
    return Scanner(
        field=float(generator.choice((1.5, 3.0))),
        t1w=(float(generator.uniform(480.0, 720.0)), float(generator.uniform(9.0, 16.0))),
        t2w=(float(generator.uniform(3500.0, 5200.0)), float(generator.uniform(84.0, 110.0))),
        flair=(float(generator.uniform(8000.0, 10000.0)), float(generator.uniform(95.0, 130.0))),
        ti_error=float(generator.normal(0.0, 50.0)),
        voxel=(plane, plane, float(generator.uniform(4.0, 5.0))),
        bias=float(generator.uniform(0.1, 0.3)),
        snr=float(generator.uniform(20.0, 40.0)),
    )


def _letters(number: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
