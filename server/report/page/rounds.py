"""Round by round: loss and external MCC, who was there, seconds and bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from server.report.page import presence
from server.report.page.chart import Chart, Line, draw, round_axis, value_axis
from server.report.page.round_row import Round
from server.report.page.svg import Axis, mcc_axis
from server.report.page.values import NOTHING, Measure, listed, measure, names, number, real, table, whole


@dataclass(frozen=True)
class Rounds:
    """All rounds: charts, presence, failures, numbers."""

    rows: tuple[Round, ...]
    charts: tuple[tuple[str, Markup], ...]
    grid: tuple[tuple[str, Markup], ...]
    axis: Markup
    legend: tuple[tuple[Markup, str], ...]
    failing: tuple[tuple[str, str], ...]


def read(report: Mapping[str, Any]) -> Rounds:
    """The rounds of a report; it may have none."""
    entries = [table(entry) for entry in listed(report["rounds"])]
    rows = tuple(_round(entry) for entry in entries)
    return Rounds(rows, _charts(rows), presence.grid(rows), presence.axis(rows), presence.legend(rows), _failing(entries))


def _round(entry: Mapping[str, Any]) -> Round:
    sites, failures = entry.get("sites"), _failures(entry)
    seen = entry.get("external") if entry.get("external") is not None else entry.get("external_mcc")
    seen = seen.get("mcc", seen) if isinstance(seen, Mapping) else seen
    return Round(
        number=whole(entry.get("round")) or 0,
        seconds=real(entry.get("seconds")),
        up=real(entry.get("bytes_up")),
        down=real(entry.get("bytes_down")),
        sites=str(len(sites)) if isinstance(sites, list | dict) else NOTHING if sites is None else str(sites),
        there=names(sites),
        failed=tuple(site for site, _ in failures),
        failures=tuple(f"{site}: {reason}" for site, reason in failures),
        paused=names(entry.get("paused")),
        mcc=measure(seen).value,
        loss=real(table(entry.get("train")).get("loss")),
    )


def _failures(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(site, reason) of each reply that a round dropped."""
    failures = [f if isinstance(f, Mapping) else {"reason": f} for f in listed(entry.get("failures"))]
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


def _charts(rows: Sequence[Round]) -> tuple[tuple[str, Markup], ...]:
    charts = []
    seen = [(row.number, row.mcc) for row in rows if row.mcc is not None]
    if seen:
        axis = mcc_axis([Measure(value) for _, value in seen])
        charts.append(
            ("MCC on the external hospital after each round. For looking: it chooses nothing.", _line(seen, axis, "MCC"))
        )
    losses = [(row.number, row.loss) for row in rows if row.loss is not None]
    if losses:
        axis = value_axis([value for _, value in losses])
        charts.append(
            (
                "Mean loss of the sites that share it. Its parts change in weight, so its height says little.",
                _line(losses, axis, "loss"),
            )
        )
    return tuple(charts)


def _line(points: Sequence[tuple[int, float]], axis: Axis, name: str) -> Markup:
    (first, start), (last, end) = points[0], points[-1]
    label = f"{name} from {number(start)} in round {first} to {number(end)} in round {last}"
    line = Line(tuple((float(r), v) for r, v in points), dots=True)
    return draw(Chart((line,), round_axis([r for r, _ in points]), axis, label, "round", name), 180)
