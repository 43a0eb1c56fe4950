"""Training rounds: loss and external MCC, which sites took part, seconds and bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from server.report.decode import Measure
from server.report.page import presence
from server.report.page.chart import Chart, Line, draw, round_axis, value_axis
from server.report.page.svg import Axis, mcc_axis
from server.report.page.values import number
from server.report.round import Part, Round


@dataclass(frozen=True)
class Rounds:
    """All rounds: charts, presence, failures, numbers."""

    rows: tuple[Round, ...]
    charts: tuple[tuple[str, Markup], ...]
    grid: tuple[tuple[str, Markup], ...]
    axis: Markup
    legend: tuple[tuple[Markup, str], ...]
    failing: tuple[tuple[str, str], ...]
    parts: tuple["SitePart", ...]


@dataclass(frozen=True)
class SitePart:
    """How much one site moved the model: mean shares over its rounds, the largest, in how many its change was shortened, and the
    mean part of its distance from the others that was left.
    """

    site: str
    weight: float
    change: float
    largest: float
    shortened: int
    near: float


def read(rows: tuple[Round, ...]) -> Rounds:
    """The rounds of a report; it may have none."""
    axis, legend = presence.axis(rows), presence.legend(rows)
    return Rounds(rows, _charts(rows), presence.grid(rows), axis, legend, _failing(rows), _parts(rows))


def _parts(rows: Sequence[Round]) -> tuple[SitePart, ...]:
    """By site, of the rounds whose record tells it."""
    found: dict[str, list[Part]] = {}
    for row in rows:
        for site, part in row.influence.items():
            found.setdefault(site, []).append(part)
    return tuple(_part(site, parts) for site, parts in sorted(found.items()))


def _part(site: str, parts: Sequence[Part]) -> SitePart:
    weights, changes = [part.weight or 0.0 for part in parts], [part.change or 0.0 for part in parts]
    shortened = sum(part.scale is not None and part.scale < 1 for part in parts)
    near = sum(1.0 if part.drawn is None else part.drawn for part in parts) / len(parts)
    return SitePart(site, sum(weights) / len(parts), sum(changes) / len(parts), max(changes), shortened, near)


def _failing(rounds: Sequence[Round]) -> tuple[tuple[str, str], ...]:
    """Each site that failed, with what happened and in which rounds."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rounds:
        for failure in row.failures:
            found.setdefault((failure.site, failure.said), []).append(str(row.number or "?"))
        for failure in row.retried:
            found.setdefault((failure.site, f"{failure.said}; the round was asked again"), []).append(str(row.number or "?"))
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
            (
                "MCC on the external hospital after each round. For information only: no choice is made by it.",
                _line(seen, axis, "MCC"),
            )
        )
    losses = [(row.number, row.loss) for row in rows if row.loss]  # of a round that only measures it is 0
    if losses:
        axis = value_axis([value for _, value in losses])
        charts.append(
            (
                "Mean loss of the sites that share it. The weights of its terms change, so rounds do not compare.",
                _line(losses, axis, "loss"),
            )
        )
    return (*charts, *_pair_charts(rows))


def _pair_charts(rows: Sequence[Round]) -> tuple[tuple[str, Markup], ...]:
    """What averaging low-rank factors apart misses, and what is left of it where `federation.low_rank` mends it."""
    missed = [(row.number, row.deviation) for row in rows if row.deviation is not None]
    left = [(row.number, row.left) for row in rows if row.left is not None]
    charts = []
    if missed:
        text = "Product of the sites' mean low-rank factors: distance from the mean of their products, relative to its size."
        charts.append((text, _line(missed, value_axis([value for _, value in missed]), "distance")))
    if left:
        text = "The same distance of the arrays that were kept, after federation.low_rank."
        charts.append((text, _line(left, value_axis([value for _, value in left]), "distance")))
    return tuple(charts)


def _line(points: Sequence[tuple[int, float]], axis: Axis, name: str) -> Markup:
    (first, start), (last, end) = points[0], points[-1]
    label = f"{name} from {number(start)} in round {first} to {number(end)} in round {last}"
    line = Line(tuple((float(r), v) for r, v in points), dots=True)
    return draw(Chart((line,), round_axis([r for r, _ in points]), axis, label, "round", name), 180)
