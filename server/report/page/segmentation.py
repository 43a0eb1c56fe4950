"""The section of a run that segments, and its sentence at the top of the page."""

from dataclasses import dataclass

from server.report.decode import Measure
from server.report.page.values import interval_text, number, patients_text
from server.report.segmentation import Agreement, Segmentation, SegmentedPatient

NAMES = {"pooled": "Pooled", "monai_unet": "MONAI's U-Net, pooled"}


@dataclass(frozen=True)
class Row:
    """One model, or one subset of the modalities."""

    name: str
    federated: bool
    found: Agreement


@dataclass(frozen=True)
class Section:
    """What the page shows."""

    rows: tuple[Row, ...]
    subsets: tuple[Row, ...]
    patients: tuple[SegmentedPatient, ...]
    cautions: tuple[str, ...]
    left_out: tuple[str, ...]


def read(found: Segmentation | None) -> Section | None:
    """The section; None where the run does not segment."""
    if found is None:
        return None
    others = tuple(Row(NAMES.get(name, name), False, one) for name, one in found.baselines.items())
    subsets = sorted(found.subsets.items(), key=lambda each: -each[0].count("+"))
    return Section(
        rows=(Row("Federated", True, found.external), *others),
        subsets=tuple(Row(name, False, one) for name, one in subsets),
        patients=found.patients,
        cautions=_cautions(found),
        left_out=found.left_out,
    )


def headline(found: Segmentation) -> str:
    """The result in one sentence."""
    n, dice = found.external.n or 0, found.external.dice
    if not n or dice.value is None:
        return "The external patients have no drawn masks: they were segmented, and nothing could be measured."
    sure = f"95% interval {interval_text(dice)}" if interval_text(dice) else "no interval"
    reach = f"On {patients_text(n)} of an external hospital, the federated model reaches a mean Dice of {number(dice.value)}"
    return f"{reach} ({sure})."


def beside(found: Segmentation) -> str:
    """How the baselines did, in one sentence, or nothing."""
    parts = [f"{NAMES.get(name, name)} {number(one.dice.value)}" for name, one in found.baselines.items() if _known(one.dice)]
    return f"Beside it, with the same patients: {', '.join(parts)}." if parts else ""


def _cautions(found: Segmentation) -> tuple[str, ...]:
    """What the means do not show."""
    empty, undrawn = found.external.empty or 0, found.undrawn or 0
    none = f"Nothing was proposed for {patients_text(empty)}, whose Dice is 0 and who have no distance." if empty else ""
    drawn = f"{patients_text(undrawn).capitalize()} had no drawn mask and could not be measured." if undrawn else ""
    return tuple(filter(None, (none, drawn)))


def _known(one: Measure) -> bool:
    return one.value is not None
