"""The forest plot: the federated model beside its baselines on the same patients, and the differences paired by patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.report.page.values import Measure, measure, table

ALONE = "this hospital alone"
CHANCE, BETTER, WORSE = "may be chance", "federated better", "federated worse"

MACROS = """
{% macro forest(rows, first, differences="") %}
{% set axis = svg.mcc_axis(rows|map(attribute="mcc")|list) %}
<table class="forest stack"><thead><tr><th scope="col">{{ first }}</th><th scope="col">MCC (95% interval)</th><td></td>
<th scope="col" class="num">Balanced accuracy</th><th scope="col" class="num">AUROC</th>
{% if differences %}<th scope="col" class="num">{{ differences }}</th>{% endif %}</tr></thead><tbody>
{% for row in rows %}
<tr{% if row.federated %} class="own"{% endif %}><th scope="row"><b>{{ row.name }}</b><small>{{ row.note }}</small></th>
<td class="lead nowrap"><span class="value">{{ row.mcc.value|number }}</span>{% if row.mcc|interval %}
 <span class="soft">({{ row.mcc|interval }})</span>{% endif %}</td>
<td class="bar">{{ svg.interval_bar(row.mcc, axis, row.federated) }}</td>
<td class="num" data-name="Balanced accuracy">{{ row.balanced_accuracy.value|number }}</td>
<td class="num" data-name="AUROC">{{ row.auroc.value|number }}</td>
{% if differences %}<td class="num nowrap wide" data-name="{{ differences }}">{{ row.difference|difference }}</td>{%
endif %}</tr>
{% endfor %}
<tr class="axis"><th class="pad"></th><td class="pad"></td><td class="bar">{{ svg.interval_axis(axis) }}</td><td
class="pad"></td><td class="pad"></td>{% if differences %}<td class="pad"></td>{% endif %}</tr></tbody></table>
{% endmacro %}

{% macro differences(rows, first, verdict) %}
{% set axis = svg.difference_axis(rows|map(attribute="difference")|list) %}
<table class="forest stack"><thead><tr><th scope="col">{{ first }}</th><th scope="col">Difference in MCC (95% interval)</th>
<td></td><th scope="col">Reads as</th></tr></thead><tbody>
{% for row in rows %}
<tr><th scope="row"><b>{{ row.name }}</b><small>{{ row.note }}</small></th>
<td class="lead nowrap"><span class="value">{{ row.difference.value|signed }}</span>{% if row.difference|interval %}
 <span class="soft">({{ row.difference|interval }})</span>{% endif %}</td>
<td class="bar">{{ svg.interval_bar(row.difference, axis, true, "Difference in MCC") }}</td>
<td class="nowrap">{{ verdict(row.difference) }}</td></tr>
{% endfor %}
<tr class="axis"><th class="pad"></th><td class="pad"></td><td class="bar">{{ svg.interval_axis(axis) }}</td><td
class="pad"></td></tr></tbody></table>
{% endmacro %}
"""

TEMPLATE = """
{% if view.top.n %}<section id="compared"><h2>{{ "Compared at the same budget" if view.rows|length > 1
else "On the external hospital" }}</h2>
<p class="soft">{% if view.rows|length > 1 %}All measured on the same external patients; the dot is the value, the line its 95%
interval. Where intervals overlap widely, the order may be chance.{% else %}No baseline was computed in this run, so there is
nothing to compare with.{% endif %}</p>
{{ forest(view.rows, "Training") }}
{% set paired = view.rows|rejectattr("federated")|selectattr("difference.value", "ne", none)|list %}
{% if paired %}<h3>Federated minus the other, patient by patient</h3>
<p class="soft">Sharper than two intervals side by side, since both models answered for the very same patients. Right of 0 the
federated model is better. Where the line crosses 0, chance is explanation enough.</p>
{{ differences(paired, "Federated minus", verdict) }}{% endif %}
{% if view.detectable %}<p class="note">{{ view.detectable }}</p>{% endif %}</section>{% endif %}
"""


@dataclass(frozen=True)
class Row:
    """One model, or one group of patients, measured."""

    name: str
    note: str
    federated: bool
    mcc: Measure
    balanced_accuracy: Measure
    auroc: Measure
    brier: Measure
    difference: Measure


def comparison(report: Mapping[str, Any]) -> tuple[Row, ...]:
    """The federated model first, then the baselines that the report has."""
    baselines = table(report["baselines"])
    rows = [measured("Federated", "hospitals train together; patients stay", report["external"], federated=True)]
    if "pooled" in baselines:
        rows.append(measured("Pooled", "all patients in one place", baselines["pooled"]))
    for site, entry in table(baselines.get("local")).items():
        rows.append(measured(site, ALONE, entry))
    if "linear_probe" in baselines:
        rows.append(measured("Linear probe", "untrained features, logistic regression", baselines["linear_probe"]))
    return tuple(rows)


def measured(name: str, note: str, entry: Any, *, federated: bool = False) -> Row:
    """A row from what `common.metrics.classification.evaluate` returned."""
    result = table(entry)
    spans = table(result.get("intervals"))
    return Row(
        name=name,
        note=note if result else "no result",
        federated=federated,
        mcc=measure(result.get("mcc")),
        balanced_accuracy=measure(result.get("balanced_accuracy"), spans.get("balanced_accuracy")),
        auroc=measure(table(result.get("auroc")).get("macro"), spans.get("auroc_macro")),
        brier=measure(result.get("brier"), spans.get("brier")),
        difference=measure(result.get("difference")),
    )


def verdict(difference: Measure, better: str = BETTER, worse: str = WORSE) -> str:
    """A paired difference in words: only an interval that leaves 0 out tells the two apart."""
    if difference.low is None or difference.high is None:
        return "no interval"
    low, high = round(difference.low, 2), round(difference.high, 2)  # as printed: "0.00 to 0.42" must not read as better
    return better if low > 0 else worse if high < 0 else CHANCE
