"""The page of the report. A string, since HTML files do not travel in a Flower app bundle."""

from server.report_audit import ALARM
from server.report_privacy import AGGREGATION, PRIVACY
from server.report_style import STYLE

COMPARISON = """
{% macro forest(rows, start, first, differences) %}
<table class="forest stack"><thead><tr><th scope="col">{{ first }}</th><th scope="col">MCC (95% interval)</th><td></td>
<th scope="col" class="num">Balanced accuracy</th><th scope="col" class="num">AUROC</th>
{% if differences %}<th scope="col" class="num">Federated minus this, MCC</th>{% endif %}</tr></thead><tbody>
{% for row in rows %}
<tr{% if row.federated %} class="own"{% endif %}><th scope="row"><b>{{ row.name }}</b><small>{{ row.note }}</small></th>
<td class="lead nowrap"><span class="value">{{ row.mcc.value|number }}</span>{% if row.mcc|interval %}
 <span class="soft">({{ row.mcc|interval }})</span>{% endif %}</td>
<td class="bar">{{ svg.interval_bar(row.mcc, start, row.federated) }}</td>
<td class="num" data-name="Balanced accuracy">{{ row.balanced_accuracy.value|number }}</td>
<td class="num" data-name="AUROC">{{ row.auroc.value|number }}</td>
{% if differences %}<td class="num nowrap wide" {%- if not row.federated %} data-name="Federated minus this"{% endif %}>
{%- if not row.federated %}{{ row.difference|measure }}{% endif %}</td>{% endif %}</tr>
{% endfor %}
<tr class="axis"><th class="pad"></th><td class="pad"></td><td class="bar">{{ svg.interval_axis(start) }}</td><td
class="pad"></td><td class="pad"></td>
{% if differences %}<td class="pad"></td>{% endif %}</tr></tbody></table>
{% endmacro %}
"""

CONFUSION = """
{% if view.classes and view.n %}
<section><h2>Which class was taken for which</h2>
<p class="soft">Each row is what the patients have, each column what the model said. The diagonal is right.</p>
<div class="scroll"><table class="confusion"><thead><tr><th scope="col">True class</th>
{% for c in view.classes %}<th scope="col">{{ c.name }}</th>{% endfor %}</tr></thead><tbody>
{% for c in view.classes %}
{% set own = loop.index0 %}
<tr><th scope="row"><b>{{ c.name }}</b><small>{% if c.support %}{{ c.right }} of {{ c.support }} right{% if c.auroc is
not none %}, AUROC
{{ c.auroc|number }}{% endif %}{% else %}no patients{% endif %}</small></th>
{% for count in c.guesses %}<td class="cell{% if loop.index0 == own %} hit{% endif %}"
 style="background:rgb(var(--wash) / {{ '%.2f'|format(0.04 + 0.5 * count / c.support if c.support else 0.02) }})">{{
 count }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></section>
{% endif %}
"""

ROUNDS = """
{% if view.rounds %}
<section><h2>Round by round</h2>
{% if view.rounds|selectattr("mcc", "ne", none)|list %}
<figure style="margin:0"><div class="curve"><div>{{ svg.curve_labels(view.rounds) }}</div><div>{{
svg.curve(view.rounds) }}</div></div>
<figcaption><small>MCC on the external hospital after each round. For looking: it chooses
nothing.</small></figcaption></figure>
{% endif %}
{% if view.failing %}<p style="margin-top:14px"><b>Sites whose reply was not used</b></p>
<ul class="fails">{% for site, what in view.failing %}<li><b>{{ site }}</b>: {{ what }}</li>{% endfor %}</ul>
{% else %}<p class="soft" style="margin-top:14px">Every site's reply was used in every round.</p>{% endif %}
<details{% if view.rounds|length <= 12 %} open{% endif %}><summary>{{ "1 round" if view.rounds|length == 1 else "All
%d rounds"|format(view.rounds|length) }}</summary>
<div class="scroll"><table><thead><tr><th scope="col">Round</th><th scope="col" class="num">Sites</th><th scope="col"
class="num">Seconds</th>
<th scope="col" class="num">From the sites</th><th scope="col" class="num">To the sites</th><th scope="col"
class="num">External MCC</th></tr></thead><tbody>
{% for row in view.rounds %}
<tr><th scope="row">{{ row.number }}</th><td class="num">{{ row.sites }}{% if row.failures %} <span class="wrong"
title="{{ row.failures|join('; ') }}">
({{ row.failures|length }} failed)</span>{% endif %}{% if row.paused %} <span class="soft"
title="not asked after too many failures in a row: {{ row.paused|join(', ') }}">
({{ row.paused|length }} paused)</span>{% endif %}</td><td class="num">{{ row.seconds|number(1) }}</td>
<td class="num">{{ row.up|filesizeformat if row.up is not none else none }}</td>
<td class="num">{{ row.down|filesizeformat if row.down is not none else none }}</td><td class="num">{{ row.mcc|number
}}</td></tr>
{% endfor %}</tbody></table></div></details></section>
{% endif %}
"""

PATIENTS = """
{% if view.patients %}
<section><h2>The external patients</h2>
<details{% if view.patients|length <= 60 %} open{% endif %}><summary>{{ view.patients|length }} {{ "patient" if
view.patients|length == 1 else "patients" }}</summary>
<table class="stack patients mods"><thead><tr><th scope="col">Patient</th><th scope="col" class="cls">Model
said</th><th scope="col" class="cls">Truth</th>
<th scope="col" style="width:34%">Probabilities</th><th scope="col">Modalities</th></tr></thead><tbody>
{% for p in view.patients %}
<tr><th scope="row"><b>{{ p.id }}</b></th><td class="lead">{{ p.guess }}
{%- if p.right is sameas false %} <span class="wrong nowrap">✕ wrong</span>{% elif p.right %} <span
class="soft">✓</span>{% endif %}</td>
<td data-name="Truth">{{ p.truth if p.truth is not none else "not known" }}</td>
<td class="wide"><div class="probs">{% for name, value in p.probabilities %}<span title="{{ name }}">{{ name
}}</span><span>{{ svg.share_bar(value) }}</span>
<span>{{ value|number }}</span>{% endfor %}</div></td><td data-name="Modalities" class="wide">{{ p.modalities or none
}}</td></tr>
{% endfor %}</tbody></table></details></section>
{% endif %}
"""

WORDS = """
<section><h2>What the words mean</h2><dl>
<dt>MCC</dt><dd>Matthews correlation coefficient: how well the predicted classes agree with the true ones, all classes
and both kinds of error
counted. 1 is perfect, 0 is no better than guessing, below 0 is worse than guessing. Always naming the most common
class gives 0.</dd>
<dt>95% interval</dt><dd>What chance leaves open, since other patients might have come. The patients are drawn again
and again with replacement
and measured each time; the interval holds the middle 95% of the results. It is wide where patients are few. It does
not cover another hospital,
another scanner or another training run.</dd>
<dt>Balanced accuracy</dt><dd>The share of right answers within each class, averaged, so that a rare class counts as
much as a common one.</dd>
<dt>AUROC</dt><dd>The chance that a patient with the class gets a higher probability of it than a patient without; the
mean over the classes.
0.5 is guessing.</dd>
<dt>Brier score</dt><dd>How far the probabilities are from the truth, squared and summed over the classes. 0 is
perfect, 2 is worst.</dd>
<dt>Calibration error</dt><dd>The gap between how sure the model says it is and how often it is right (ECE, 15 bins).
With few patients it
comes out too high, and its interval would mislead, so none is given.</dd>
<dt>External hospital</dt><dd>It took no part in training and chose nothing: no setting, no round and no model. The
model is the last round's, or one
chosen on patients held back inside the training hospitals.</dd>
<dt>Round</dt><dd>Each hospital trains for a while on its own patients and sends back what it learned, never images;
the server averages.</dd>
</dl></section>
"""

TEMPLATE = (
    COMPARISON
    + """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>FedMRI report</title><style>"""
    + STYLE
    + """</style></head><body><main>
<header><p class="eyebrow">FedMRI report</p><h1>{{ view.headline }}</h1>
{% if view.beside %}<p>{{ view.beside }}</p>{% endif %}
<p class="soft">The patients are those of {{ view.hospital }}. It took no part in training and chose nothing.</p>
{% if view.caution %}<p class="note">{{ view.caution }}</p>{% endif %}
"""
    + ALARM
    + """
{% if view.n %}<div class="tiles">{% for name, m, scale in view.tiles %}
<div class="tile"><span class="name">{{ name }}</span><b>{{ m.value|number }}</b>
<span>{{ "interval %s"|format(m|interval) if m|interval else "no interval" }}</span><span>{{ scale }}</span></div>{%
endfor %}</div>{% endif %}
</header>
{% if view.n %}<section><h2>{{ "Compared at the same budget" if view.rows|length >
1 else "On the external hospital" }}</h2>
<p class="soft">{% if view.rows|length > 1 %}All measured on the same external patients; the dot is the value, the
line its 95% interval.
Where intervals overlap widely, the order may be chance.{% else %}No baseline was computed in this run, so there is
nothing to compare with.{% endif %}</p>
{{ forest(view.rows, svg.scale_start(view.rows|map(attribute="mcc")|list), "Training",
  view.rows|map(attribute="difference.value")|select("ne", none)|list|length > 0) }}</section>{% endif %}
"""
    + CONFUSION
    + """
{% if view.subsets %}<section><h2>With only some of the modalities</h2>
<p class="soft">The same model, with the other modalities taken away from every patient.</p>
{{ forest(view.subsets, svg.scale_start(view.subsets|map(attribute="mcc")|list), "Modalities", false) }}</section>{%
endif %}
"""
    + ROUNDS
    + PRIVACY
    + AGGREGATION
    + """
{% if view.calibration %}<section><h2>Calibration</h2><p class="soft">Before and after temperature scaling, which
changes how sure the model is,
not what it says.</p><dl class="plain">{% for name, value in view.calibration %}<dt>{{ name }}</dt><dd>{{ value
}}</dd>{% endfor %}</dl></section>{% endif %}
"""
    + PATIENTS
    + WORDS
    + """
{% if view.provenance or view.config %}<section><h2>Where it comes from</h2>
<dl class="plain">{% for name, value in view.provenance %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{% if view.config %}<details><summary>The whole configuration</summary><pre>{{ view.config }}</pre></details>{% endif
%}</section>{% endif %}
<footer>For research. Not a medical device, and not for decisions about a patient.</footer>
</main></body></html>
"""
)
