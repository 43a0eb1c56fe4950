"""What the page and the terminal table say: the report's numbers turned into rows and sentences."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "\N{EN DASH}"  # what stands where there is no value
FEW_PATIENTS, VERY_FEW_PATIENTS = 30, 10


@dataclass(frozen=True)
class Measure:
    """A value with its interval; None where not defined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One way of training, measured on the external hospital."""

    name: str
    note: str
    federated: bool
    mcc: Measure
    balanced_accuracy: Measure
    auroc: Measure
    brier: Measure
    difference: Measure


@dataclass(frozen=True)
class ClassRow:
    """How one class fared. `guesses` are the predicted classes' counts, in the order of the classes."""

    name: str
    support: int
    right: int
    auroc: float | None
    guesses: tuple[int, ...]


@dataclass(frozen=True)
class RoundRow:
    """One round. `mcc` is the external value, for looking only."""

    number: int
    seconds: float | None
    up: int | None
    down: int | None
    sites: str
    failures: tuple[str, ...]
    paused: tuple[str, ...]
    mcc: float | None


@dataclass(frozen=True)
class PatientRow:
    """One external patient. `right` is None where the truth is unknown."""

    id: str
    truth: str | None
    guess: str | None
    right: bool | None
    probabilities: tuple[tuple[str, float | None], ...]
    modalities: str


@dataclass(frozen=True)
class View:
    """All that the page shows, in its order."""

    n: int  # labelled external patients
    hospital: str
    headline: str
    beside: str
    caution: str
    tiles: tuple[tuple[str, Measure, str], ...]
    rows: tuple[Row, ...]
    classes: tuple[ClassRow, ...]
    subsets: tuple[Row, ...]
    rounds: tuple[RoundRow, ...]
    failing: tuple[tuple[str, str], ...]
    patients: tuple[PatientRow, ...]
    calibration: tuple[tuple[str, str], ...]
    privacy: tuple[tuple[str, Mapping[str, Any]], ...]
    aggregation: Mapping[str, Any]
    provenance: tuple[tuple[str, str], ...]
    config: str


def build(report: Mapping[str, Any]) -> View:
    """Read a report, made by `server.report.assemble`, into what the page shows."""
    external = report["external"]
    rounds = tuple(_round(entry) for entry in report["rounds"])
    rows = comparison(report)
    hospital = report["provenance"].get("external")
    return View(
        n=int(external.get("n") or 0),
        hospital=hospital if isinstance(hospital, str) and hospital else "the external hospital",
        headline=headline(report),
        beside=_beside(rows),
        caution=_caution(external),
        tiles=_tiles(rows[0], external),
        rows=rows,
        classes=_classes(external),
        subsets=tuple(_row(name, "", False, entry) for name, entry in report["modality_subsets"].items()),
        rounds=rounds,
        failing=_failing(report["rounds"]),
        patients=tuple(_patient(entry, list(external.get("support") or {})) for entry in report["patients"]),
        calibration=_pairs(report["calibration"] or {}),
        privacy=tuple((site, entry or {}) for site, entry in report["privacy"].items()),
        aggregation=report.get("aggregation") or {},
        provenance=_pairs({k: v for k, v in report["provenance"].items() if k not in ("config", "external")}),
        config=_config_text(report["provenance"].get("config")),
    )


def comparison(report: Mapping[str, Any]) -> tuple[Row, ...]:
    """The federated model first, then the baselines that the report has."""
    baselines = report["baselines"]
    rows = [_row("Federated", "hospitals train together; patients stay", True, report["external"])]
    if "pooled" in baselines:
        rows.append(_row("Pooled", "all patients in one place", False, baselines["pooled"]))
    for site, entry in (baselines.get("local") or {}).items():
        rows.append(_row(site, "this hospital alone", False, entry))
    if "linear_probe" in baselines:
        rows.append(_row("Linear probe", "untrained features, logistic regression", False, baselines["linear_probe"]))
    return tuple(rows)


def headline(report: Mapping[str, Any]) -> str:
    """The result in one sentence."""
    external, mcc = report["external"], _measure(report["external"].get("mcc"))
    n = external.get("n") or 0
    patients = f"{n} {'patient' if n == 1 else 'patients'}"
    if not n:
        return "The external patients have no labels: they were predicted, and nothing could be measured."
    if mcc.value is None:
        known = sum(1 for count in (external.get("support") or {}).values() if count)
        why = " (all of one class)" if known == 1 and n > 1 else ""
        return f"On {patients} of an external hospital{why}, MCC is not defined."
    reach = f"On {patients} of an external hospital, the federated model reaches MCC {number(mcc.value)}"
    return f"{reach} (95% interval {interval_text(mcc)})." if mcc.low is not None else f"{reach} (no interval)."


def number(value: float | None, digits: int = 2) -> str:
    """A number for reading: two decimals, a true minus sign, a dash for None."""
    if value is None:
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")  # noqa: RUF001


def interval_text(measure: Measure) -> str:
    """`0.52 to 0.81`, or nothing."""
    return "" if measure.low is None or measure.high is None else f"{number(measure.low)} to {number(measure.high)}"


def measure_text(measure: Measure) -> str:
    """`0.70 (0.52 to 0.81)`."""
    interval = interval_text(measure)
    return f"{number(measure.value)} ({interval})" if interval else number(measure.value)


def _measure(entry: Any, interval: Any = None) -> Measure:
    """From {value, low, high}, or from a plain number and its interval."""
    if isinstance(entry, Mapping):
        return Measure(entry.get("value"), entry.get("low"), entry.get("high"))
    span = interval or {}
    return Measure(entry if isinstance(entry, int | float) else None, span.get("low"), span.get("high"))


def _row(name: str, note: str, federated: bool, result: Mapping[str, Any] | None) -> Row:
    result = result or {}
    spans = result.get("intervals") or {}
    return Row(
        name=name,
        note=note if result else "no result",
        federated=federated,
        mcc=_measure(result.get("mcc")),
        balanced_accuracy=_measure(result.get("balanced_accuracy"), spans.get("balanced_accuracy")),
        auroc=_measure((result.get("auroc") or {}).get("macro"), spans.get("auroc_macro")),
        brier=_measure(result.get("brier"), spans.get("brier")),
        difference=_measure(result.get("difference")),
    )


def _beside(rows: Sequence[Row]) -> str:
    """How the baselines did, in one sentence, or nothing."""
    local = [row for row in rows if row.note == "this hospital alone" and row.mcc.value is not None]
    parts = []
    if local:
        best = max(local, key=lambda row: row.mcc.value or 0.0)
        parts.append(f"the best hospital alone {number(best.mcc.value)} ({best.name})")
    for name, words in (("Pooled", "pooled training"), ("Linear probe", "the linear probe")):
        parts += [f"{words} {number(row.mcc.value)}" for row in rows if row.name == name and row.mcc.value is not None]
    return f"Beside it, with the same patients: {', '.join(parts)}." if parts else ""


def _caution(external: Mapping[str, Any]) -> str:
    """What a reader must know before reading on: few patients, classes that are not there."""
    n = external.get("n") or 0
    absent = [name for name, count in (external.get("support") or {}).items() if not count]
    if not n:
        return ""
    advice = "too few to conclude anything" if n < VERY_FEW_PATIENTS else "read the intervals, not the points"
    few = f"Only {n} labelled {'patient' if n == 1 else 'patients'}: {advice}. " if n < FEW_PATIENTS else ""
    lack = f"No external patient is known to have {' or '.join(absent)}: nothing is measured for that." if absent else ""
    return (few + lack).strip()


def _tiles(row: Row, external: Mapping[str, Any]) -> tuple[tuple[str, Measure, str], ...]:
    return (
        ("MCC", row.mcc, "1 perfect, 0 guessing"),
        ("Balanced accuracy", row.balanced_accuracy, "1 perfect"),
        ("AUROC", row.auroc, "1 perfect, 0.5 guessing"),
        ("Brier score", row.brier, "0 perfect, 2 worst"),
        ("Calibration error", _measure(external.get("ece")), "0 perfect"),
    )


def _classes(external: Mapping[str, Any]) -> tuple[ClassRow, ...]:
    support, confusion = external.get("support") or {}, external.get("confusion") or []
    aurocs = (external.get("auroc") or {}).get("per_class") or {}
    rows = [tuple(int(count) for count in counts) for counts in confusion]
    if len(rows) != len(support):
        return ()
    return tuple(
        ClassRow(name, int(count or 0), rows[c][c], aurocs.get(name), rows[c]) for c, (name, count) in enumerate(support.items())
    )


def _round(entry: Mapping[str, Any]) -> RoundRow:
    sites = entry.get("sites")
    seen = entry.get("external") if entry.get("external") is not None else entry.get("external_mcc")
    seen = seen.get("mcc", seen) if isinstance(seen, Mapping) else seen
    return RoundRow(
        number=int(entry.get("round") or 0),
        seconds=entry.get("seconds"),
        up=entry.get("bytes_up"),
        down=entry.get("bytes_down"),
        sites=str(len(sites)) if isinstance(sites, list | dict) else NOTHING if sites is None else str(sites),
        failures=tuple(f"{site}: {reason}" for site, reason in _failures(entry)),
        paused=tuple(str(site) for site in entry.get("paused") or ()),
        mcc=_measure(seen).value,
    )


def _failures(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(site, reason) of each reply that a round dropped."""
    failures = [f if isinstance(f, Mapping) else {"reason": f} for f in entry.get("failures") or []]
    return [(str(f.get("site") or "unknown site"), str(f.get("reason") or "no reason given")) for f in failures]


def _failing(rounds: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Each site that failed, with what happened and in which rounds."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in rounds:
        for failure in _failures(entry):
            found.setdefault(failure, []).append(str(entry.get("round", "?")))
    return tuple(
        (site, f"{reason} ({'round' if len(when) == 1 else 'rounds'} {', '.join(when)})")
        for (site, reason), when in sorted(found.items())
    )


def _patient(entry: Mapping[str, Any], classes: list[str]) -> PatientRow:
    given = entry.get("probabilities") or []
    values = list(given.values()) if isinstance(given, Mapping) else list(given)
    names = list(given) if isinstance(given, Mapping) else classes or [f"class {c}" for c in range(len(values))]
    pairs = tuple(zip(names, values, strict=False))
    known = [(name, value) for name, value in pairs if value is not None]
    guess = max(known, key=lambda pair: pair[1])[0] if known else None
    label = entry.get("label")
    if isinstance(label, int):
        label = names[label] if 0 <= label < len(names) else None
    return PatientRow(
        id=str(entry.get("id", NOTHING)),
        truth=label,
        guess=guess,
        right=None if label is None or guess is None else label == guess,
        probabilities=pairs,
        modalities=", ".join(str(m) for m in entry.get("modalities") or []),
    )


def _pairs(table: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """A nested table as (dotted name, text)."""
    pairs: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            pairs += _pairs(value, f"{prefix}{key} · ")
        else:
            text = number(value, 4) if isinstance(value, float) else NOTHING if value is None else str(value)
            pairs.append((f"{prefix}{key}", text))
    return tuple(pairs)


def _config_text(config: Any) -> str:
    """The run's configuration, indented, whether it came as JSON text or as a table."""
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except ValueError:
            return str(config)
    return json.dumps(config, indent=2, ensure_ascii=False) if config else ""
