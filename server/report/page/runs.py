"""The page that shows runs side by side."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from server.report.page import comparison, svg
from server.report.page.headline import detectable_text
from server.report.page.page import FOOT, HEAD, compiled
from server.report.page.values import Measure, and_text, measure, number, patients_text

TEMPLATE = (
    HEAD
    + """
<header><p class="eyebrow">FedMRI runs side by side</p><h1>{{ title }}</h1>
<p class="soft">Each is measured on an external hospital that took no part in its training. {{ patients }}</p>
{% for sentence in cautions %}<p class="note">{{ sentence }}</p>{% endfor %}</header>
<section><h2>What each run reached</h2><table class="forest stack"><thead><tr><th scope="col">Run</th>
<th scope="col">MCC (95% interval)</th><td></td><th scope="col" class="num">Balanced accuracy</th><th scope="col"
class="num">AUROC</th><th scope="col" class="num">Brier score</th></tr></thead><tbody>
{% for run in runs %}<tr{% if loop.first %} class="own"{% endif %}><th scope="row"><b>{{ run.name }}</b><small>{{
run.external or "external hospital not named" }}, n {{ run.n }}</small></th>
<td class="lead nowrap"><span class="value">{{ run.mcc.value|number }}</span>{% if run.mcc|interval %} <span class="soft">({{
run.mcc|interval }})</span>{% endif %}</td><td class="bar">{{ svg.interval_bar(run.mcc, axis, loop.first) }}</td>
{% for name, m in run.measures %}<td class="num" data-name="{{ name }}">{{ m.value|number }}{% if m|interval %}
 <small class="soft">{{ m|interval }}</small>{% endif %}</td>{% endfor %}</tr>{% endfor %}
<tr class="axis"><th class="pad"></th><td class="pad"></td><td class="bar">{{ svg.interval_axis(axis) }}</td><td
class="pad"></td><td class="pad"></td><td class="pad"></td></tr></tbody></table></section>
{% if paired %}<section><h2>Against {{ runs[0].name }}, patient by patient</h2>
<p class="soft">Each run minus {{ runs[0].name }}, on the labelled patients that both have. Right of 0 the run is better.
Where the
line crosses 0, chance is explanation enough.</p>
{{ differences(paired, "Run", verdict) }}
{% for sentence in smallest %}<p class="note">{{ sentence }}</p>{% endfor %}</section>{% endif %}
{% if unpaired %}<section><h2>Not compared patient by patient</h2><ul class="fails">{% for name, why in unpaired %}<li><b>{{ name
}}</b>: {{ why }}</li>{% endfor %}</ul></section>{% endif %}
<section><h2>Calibration</h2><div class="scroll"><table><thead><tr><th scope="col">Run</th><th scope="col"
class="num">Temperature</th><th scope="col" class="num">Calibration error before</th><th scope="col" class="num">Calibration
error</th><th scope="col" class="num">Sets: promised</th><th scope="col" class="num">Sets: seen</th></tr></thead><tbody>
{% for run in runs %}<tr><th scope="row"><b>{{ run.name }}</b></th><td class="num">{{ run.calibration.temperature|number }}</td>
<td class="num">{{ run.calibration.ece_before|number(3) }}</td><td class="num">{{ run.calibration.ece|number(3) }}</td>
<td class="num">{{ run.calibration.coverage.nominal|percent }}</td><td class="num">{{ run.calibration.coverage.observed|percent
}}</td></tr>{% endfor %}</tbody></table></div></section>
{% if subsets %}<section><h2>With only some of the modalities</h2><p class="soft">MCC with its 95% interval; the stronger the
colour, the higher.</p><div class="scroll"><table class="heat"><thead><tr><th scope="col">Modalities</th>{% for run in runs %}
<th scope="col" class="num">{{ run.name }}</th>{% endfor %}</tr></thead><tbody>
{% for name, cells in subsets %}<tr><th scope="row">{{ name }}</th>{% for m in cells %}<td class="num cell"{% if m.value is not
none %} style="background:rgb(var(--wash) / {{ '%.2f'|format(0.05 + 0.5 * [[m.value, 0]|max, 1]|min) }})"{% endif %}><b>{{
m.value|number }}</b>{% if m|interval %} <small>{{ m|interval }}</small>{% endif %}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div></section>{% endif %}
<section><h2>Settings that differ</h2>{% if config %}<div class="scroll"><table><thead><tr><th scope="col">Setting</th>{% for run
in runs %}<th scope="col">{{ run.name }}</th>{% endfor %}</tr></thead><tbody>{% for key, row in config %}<tr><th
scope="row">{{ key
}}</th>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>{% else %}<p>None: the runs'
configurations are the same.</p>{% endif %}</section>
"""
    + FOOT
)
BETTER, WORSE = "this run is better", "this run is worse"


def render(compared: Mapping[str, Any]) -> str:
    """What `server.report.compare_runs.compare_runs` gave as one self-contained page."""
    runs = [_shown(run) for run in compared["runs"]]
    paired = [_difference(run["name"], run["paired"]) for run in compared["runs"] if run["paired"]]
    smallest = [detectable_text(run["paired"]["detectable"] or {}) for run in compared["runs"] if run["paired"]]
    return compiled(comparison.MACROS + TEMPLATE).render(
        title=headline(compared),
        patients=_patients(compared),
        cautions=cautions(compared["runs"]),
        runs=runs,
        axis=svg.mcc_axis([run["mcc"] for run in runs]),
        paired=paired,
        smallest=list(dict.fromkeys(filter(None, smallest))),
        unpaired=[(run["name"], run["unpaired"]) for run in compared["runs"] if run["unpaired"]],
        subsets=_subsets(compared["runs"]),
        config=[(key, [text(value) for value in row]) for key, row in compared["config"].items()],
        svg=svg,
        verdict=lambda difference: comparison.verdict(difference, BETTER, WORSE),
    )


def headline(compared: Mapping[str, Any]) -> str:
    """The runs' MCC in a sentence."""
    parts = tuple(f"{run['name']} {number(run['mcc']['value'])}" for run in compared["runs"])
    return f"MCC on the external hospital: {and_text(parts)}."


def cautions(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know before reading on: once where it holds for all runs, else with the run's name."""
    said = {run["caution"] for run in runs}
    return [*filter(None, said)] if len(said) == 1 else [f"{run['name']}: {run['caution']}" for run in runs if run["caution"]]


def text(value: Any) -> str:
    """A setting as its file has it; nothing where a run has no such setting."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _patients(compared: Mapping[str, Any]) -> str:
    hospitals = tuple(dict.fromkeys(run["external"] for run in compared["runs"] if run["external"]))
    if len(hospitals) == 1:
        return f"Here it is {hospitals[0]} for all of them."
    return "It is not the same hospital for all of them." if hospitals else ""


def _shown(run: Mapping[str, Any]) -> dict[str, Any]:
    names = (("Balanced accuracy", "balanced_accuracy"), ("AUROC", "auroc"), ("Brier score", "brier"))
    return {**run, "mcc": measure(run["mcc"]), "measures": [(name, measure(run[key])) for name, key in names]}


def _difference(name: str, paired: Mapping[str, Any]) -> comparison.Row:
    """A line of the forest plot of differences."""
    note = f"{patients_text(paired['n'])} in common"
    return comparison.measured(name, note, {"difference": paired["differences"]["mcc"]})


def _subsets(runs: list[Mapping[str, Any]]) -> list[tuple[str, list[Measure]]]:
    keys = dict.fromkeys(key for run in runs for key in run["subsets"])
    ordered = sorted(keys, key=lambda key: -key.count("+"))
    return [(key, [measure(run["subsets"].get(key)) for run in runs]) for key in ordered]
