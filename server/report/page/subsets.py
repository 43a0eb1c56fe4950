"""Missing modalities: a heat map, one row for each subset of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.report.decode import Measure
from server.report.evaluation import Evaluation
from server.report.page.values import and_text, difference_text, number


@dataclass(frozen=True)
class Subset:
    """One subset. `first` of those of its size; `drop` is the full set's MCC minus this one's."""

    name: str
    present: tuple[bool, ...]  # in the order of the modalities
    first: bool
    mcc: Measure
    shade: float
    n: int | None
    drop: Measure


@dataclass(frozen=True)
class Subsets:
    """The heat map, the fullest subset first, and what it amounts to."""

    modalities: tuple[str, ...]
    rows: tuple[Subset, ...]
    paired: bool
    said: tuple[str, ...]


def read(found: Mapping[str, Evaluation]) -> Subsets | None:
    """The heat map, or None where no subset was measured."""
    entries = [(name, tuple(name.split("+")), entry) for name, entry in found.items()]
    if not entries:
        return None
    modalities = tuple(dict.fromkeys(part for _, parts, _ in entries for part in parts))
    rows: list[Subset] = []
    for name, parts, entry in sorted(entries, key=lambda each: -len(each[1])):  # stable: else as in the report
        present = tuple(modality in parts for modality in modalities)
        first = bool(rows) and sum(rows[-1].present) != sum(present)
        shade = 0.05 + 0.5 * min(max(entry.mcc.value or 0.0, 0.0), 1.0)
        drop = Measure() if all(present) else entry.drop  # the full set loses nothing against itself
        rows.append(Subset(name, present, first, entry.mcc, shade, entry.n, drop))
    paired = any(row.drop.value is not None for row in rows)
    return Subsets(modalities, tuple(rows), paired, tuple(filter(None, (_mean(rows), _missed(modalities, rows)))))


def _mean(rows: Sequence[Subset]) -> str:
    """What incomplete patients may expect on average."""
    part = [row.mcc.value for row in rows if not all(row.present) and row.mcc.value is not None]
    full = [row.mcc.value for row in rows if all(row.present) and row.mcc.value is not None]
    if not full or len(part) < 2:
        return ""
    mean = number(sum(part) / len(part))
    return f"With all modalities MCC is {number(full[0])}; its mean over the {len(part)} incomplete subsets is {mean}."


def _missed(modalities: Sequence[str], rows: Sequence[Subset]) -> str:
    """The single modality whose loss costs most."""
    one_gone = [row for row in rows if sum(row.present) == len(modalities) - 1 and row.drop.value is not None]
    worst = max(one_gone, key=lambda row: row.drop.value or 0.0, default=None)
    if worst is None or len(one_gone) < 2 or not (worst.drop.value or 0.0) > 0:
        return ""
    gone = and_text(tuple(name for name, here in zip(modalities, worst.present, strict=True) if not here))
    open_ = ", which may be chance" if worst.drop.low is None or round(worst.drop.low, 2) <= 0 else ""
    return f"Of single modalities, {gone} matters most: without it MCC falls by {difference_text(worst.drop).lstrip('+')}{open_}."
