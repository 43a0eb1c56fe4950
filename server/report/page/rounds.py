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

TEMPLATE = """
{% if view.rounds.rows %}
<section id="rounds"><h2>Round by round</h2>
<div class="plots two">
{% for name, drawing in view.rounds.charts %}<figure><figcaption>{{ name }}</figcaption>{{ drawing }}</figure>{% endfor %}</div>
{% if view.rounds.grid %}<h3>Who was there</h3><div class="scroll"><table class="grid"><tbody>
{% for site, cells in view.rounds.grid %}<tr><th scope="row">{{ site }}</th><td>{{ cells }}</td></tr>{% endfor %}
<tr class="axis"><th class="soft">round</th><td>{{ view.rounds.axis }}</td></tr></tbody></table></div>
<p class="soft legend"><small>{% for cell, words in view.rounds.legend %}<span class="key">{{ cell }}</span>{{ words }} {%
endfor %}</small></p>{% endif %}
{% if view.rounds.failing %}<p style="margin-top:14px"><b>Sites whose reply was not used</b></p>
<ul class="fails">{% for site, what in view.rounds.failing %}<li><b>{{ site }}</b>: {{ what }}</li>{% endfor %}</ul>
{% else %}<p class="soft" style="margin-top:14px">Every site's reply was used in every round.</p>{% endif %}
<details{% if view.rounds.rows|length <= 12 %} open{% endif %}><summary>{{ "1 round" if view.rounds.rows|length == 1 else "All
%d rounds"|format(view.rounds.rows|length) }}</summary>
<div class="scroll"><table><thead><tr><th scope="col">Round</th><th scope="col" class="num">Sites</th><th scope="col"
class="num">Loss</th><th scope="col" class="num">External MCC</th><th scope="col" class="num">Seconds</th><th scope="col"
class="num">From the sites</th><th scope="col" class="num">To the sites</th></tr></thead><tbody>
{% for row in view.rounds.rows %}
<tr><th scope="row">{{ row.number }}</th><td class="num">{{ row.sites }}{% if row.failures %} <span class="wrong"
title="{{ row.failures|join('; ') }}">({{ row.failures|length }} failed)</span>{% endif %}{% if row.paused %} <span class="soft"
title="not asked after too many failures in a row: {{ row.paused|join(', ') }}">
({{ row.paused|length }} paused)</span>{% endif %}</td><td class="num">{{ row.loss|number }}</td>
<td class="num">{{ row.mcc|number }}</td><td class="num">{{ row.seconds|number(1) }}</td>
<td class="num nowrap">{{ row.up|filesizeformat if row.up is not none else none }}</td>
<td class="num nowrap">{{ row.down|filesizeformat if row.down is not none else none }}</td></tr>
{% endfor %}</tbody></table></div></details></section>
{% endif %}
"""


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
