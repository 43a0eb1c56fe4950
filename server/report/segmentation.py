"""A run that segments: its measures on the external patients, read back from report.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.report.decode import NO_MEASURE, Measure, listed, measure, names, real, table, whole


@dataclass(frozen=True)
class Agreement:
    """Means over patients; of one patient, the values without intervals."""

    dice: Measure = NO_MEASURE
    jaccard: Measure = NO_MEASURE
    hd95_mm: Measure = NO_MEASURE
    n: int | None = None  # patients with a drawn mask
    empty: int | None = None  # those for whom nothing was proposed, who have no distance
    difference: Measure = NO_MEASURE  # in mean Dice, paired by patient: the federated model, or all modalities, minus this one


@dataclass(frozen=True)
class SegmentedPatient:
    """An external patient; None where nobody drew a mask."""

    id: str
    modalities: tuple[str, ...]
    dice: float | None
    jaccard: float | None
    hd95_mm: float | None
    drawn_ml: float | None
    proposed_ml: float | None


@dataclass(frozen=True)
class Segmentation:
    """All of it.

    Attributes:
        baselines: by name, as the page shows it.
        subsets: by modalities, such as "t1+flair".
    """

    external: Agreement
    undrawn: int | None
    left_out: tuple[str, ...]
    baselines: Mapping[str, Agreement]
    subsets: Mapping[str, Agreement]
    patients: tuple[SegmentedPatient, ...]


def decode_segmentation(report: Mapping[str, Any]) -> Segmentation | None:
    """From a whole report.json; None where the run does not segment."""
    entry = table(table(report.get("external")).get("segmentation"))
    if not entry:
        return None
    baselines = table(report.get("baselines"))
    found = {str(name): value for name, value in baselines.items() if name != "local"}
    found |= {f"{site} alone": value for site, value in table(baselines.get("local")).items()}
    return Segmentation(
        external=_agreement({"segmentation": entry}),
        undrawn=whole(entry.get("undrawn")),
        left_out=names(entry.get("left_out")),
        baselines={name: _agreement(table(value)) for name, value in found.items()},
        subsets={str(name): _agreement(table(value)) for name, value in table(report.get("modality_subsets")).items()},
        patients=tuple(_patient(table(one)) for one in listed(report.get("patients"))),
    )


def _agreement(entry: Mapping[str, Any]) -> Agreement:
    found = table(entry.get("segmentation"))
    return Agreement(
        dice=measure(found.get("dice")),
        jaccard=measure(found.get("jaccard")),
        hd95_mm=measure(found.get("hd95_mm")),
        n=whole(found.get("n")),
        empty=whole(found.get("empty")),
        difference=measure(entry.get("difference") or entry.get("drop")),
    )


def _patient(entry: Mapping[str, Any]) -> SegmentedPatient:
    found = table(entry.get("segmentation"))
    values = (real(found.get(name)) for name in ("dice", "jaccard", "hd95_mm", "drawn_ml", "proposed_ml"))
    return SegmentedPatient(str(entry.get("id", "")), names(entry.get("modalities")), *values)
