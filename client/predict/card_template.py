"""The card's page. A string, since HTML files do not travel in a Flower app bundle."""

STYLE = """
:root { color-scheme: light dark; --page:#f4f5f3; --paper:#fff; --ink:#1b242c; --soft:#5a6772; --line:#dde2e4; --own:#0a6a72;
  --note:#fbf3dc; --note-ink:#5b4a16; --alarm:#a8432c; }
@media (prefers-color-scheme: dark) { :root { --page:#10151a; --paper:#182027; --ink:#e7ebed; --soft:#9eabb6; --line:#2d3841;
  --own:#58c4c9; --note:#2c2715; --note-ink:#ecdca6; --alarm:#f0937a; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink); font:16px/1.5
  system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
  overflow-wrap:anywhere; -webkit-text-size-adjust:100%; }
main { max-width:960px; margin:0 auto; padding:28px 20px 44px; }
h1 { font-size:1.5rem; line-height:1.25; margin:.2em 0 .4em; } h2 { font-size:1.1rem; margin:0 0 .5em; }
p { margin:0 0 .7em; max-width:46em; } .soft { color:var(--soft); font-size:.9rem; }
section { background:var(--paper); border:1px solid var(--line); border-radius:12px; padding:18px 20px; margin-top:16px; }
.note { background:var(--note); color:var(--note-ink); border-radius:8px; padding:8px 12px; margin:0; }
.alarm { color:var(--alarm); font-weight:600; }
.bars { display:grid; grid-template-columns:minmax(0,max-content) minmax(60px,1fr) 4.2em; gap:6px 12px; align-items:center;
  margin:0 0 .8em; }
.bars b { font-weight:400; } .bars .top { font-weight:600; color:var(--own); } .bars span { text-align:right;
  font-variant-numeric:tabular-nums; }
.bars i { display:block; height:12px; border-radius:6px; background:var(--line); overflow:hidden; }
.bars i i { height:100%; background:var(--own); border-radius:0; } .bars i .against { background:#2878ff; } .bars i .for {
  background:#ff8c00; }
dl { margin:0; display:grid; grid-template-columns:minmax(110px,max-content) 1fr; gap:6px 18px; } dt { color:var(--soft); } dd
  { margin:0; }
.row { margin:0 0 12px; } .row h3 { font-size:.85rem; margin:0 0 4px; color:var(--soft); letter-spacing:.04em; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(96px,1fr)); gap:6px; } figure { margin:0;
  break-inside:avoid; }
.frame { position:relative; aspect-ratio:1; background:#000; border-radius:6px; overflow:hidden; }
.frame img { position:absolute; inset:0; width:100%; height:100%; } figcaption { font-size:.75rem; color:var(--soft); }
#show:not(:checked) ~ .rows .over { display:none; } label { cursor:pointer; } #show { accent-color:var(--own); margin:0 6px
  12px 0; }
.key { display:inline-block; width:.8em; height:.8em; border-radius:3px; margin-right:.3em; }
footer { color:var(--soft); font-size:.85rem; margin-top:18px; }
@media (max-width:600px) { main { padding:16px 12px 32px; } section { padding:14px; } dl { grid-template-columns:1fr; gap:0; }
  dd { margin-bottom:8px; } }
@media print { :root { color-scheme:light; --page:#fff; --paper:#fff; --ink:#000; --soft:#444; --line:#ccc; --own:#0a6a72;
  --note:#fff;
  --note-ink:#000; --alarm:#a8432c; } main { padding:0; max-width:none; } section { border:0; border-top:1px solid #ccc;
  border-radius:0; }
  * { print-color-adjust:exact; -webkit-print-color-adjust:exact; } }
"""

TEMPLATE = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ table.patient }}: {{ table.prediction }}</title><style>"""
    + STYLE
    + """</style></head><body><main>
<p class="note">{{ research }}</p>
<h1>{{ table.patient }}: {{ table.prediction }}, {{ table.probabilities[table.prediction]|percent }}</h1>
{% if warning %}<p class="alarm">{{ warning }}</p>{% endif %}

<section><h2>How likely each class is</h2>
<div class="bars">
{% for name, p in table.probabilities.items() %}
<b{% if name == table.prediction %} class="top"{% endif %}>{{ name }}</b><i><i
 style="width:{{ '%.2f'|format(100 * p) }}%"></i></i>
<span>{{ p|percent }}</span>
{% endfor %}
</div>
<dl>
<dt>Calibration</dt><dd{% if not answer.calibrated %} class="alarm"{% endif %}>{{ calibration }}</dd>
<dt>Prediction set</dt><dd>{% if table.prediction_set is none %}not known without a calibration{% else %}
{{ table.prediction_set|join(", ") }}. <span class="soft">{{ set_words }}</span>{% endif %}</dd>
<dt>Like the training patients?</dt><dd{% if answer.flagged %} class="alarm"{% endif %}>{{ likeness }}</dd>
<dt>Modalities used</dt><dd>{{ table.modalities.used|join(", ") }}{% if table.modalities.missing %}; missing:
 {{ table.modalities.missing|join(", ") }}{% endif %}{% if table.modalities.ignored %}; the model does not know:
 {{ table.modalities.ignored|join(", ") }}{% endif %}</dd>
<dt>Slices</dt><dd>{{ table.slices.why }}</dd>
</dl></section>

{% if answer.by_modality is not none %}
<section><h2>Evidence by modality</h2>
{% if drops %}
<div class="bars">
{% for drop in drops %}
<b>{{ drop.name }}</b><i><i class="{{ 'for' if drop.value >= 0 else 'against' }}"
 style="width:{{ '%.2f'|format(drop.width) }}%"></i></i>
<span>{{ drop.value|points }}</span>
{% endfor %}
</div>
<p class="soft">Points of probability that {{ table.prediction }} loses (or, with a minus, gains) when the modality is left
 out. The longest bar is this patient's largest
 value.</p>
{% else %}
<p>There is one modality only: none can be left out.</p>
{% endif %}
</section>
{% endif %}

<section><h2>What the model saw</h2>
{% if answer.by_place is not none %}
<input type="checkbox" id="show" checked><label for="show">Show the evidence by place</label>
<p class="soft"><span class="key" style="background:#ff8c00"></span>carries {{ table.prediction }} &nbsp;
<span class="key" style="background:#2878ff"></span>speaks against it. The colours are scaled to this
 patient: the strongest stands for {{ strongest }} of the logit in one square, so weak evidence looks as strong as firm.</p>
{% endif %}
<p class="soft">The patient's right is on the left, the front above; {{ '%g'|format(answer.config.data.field_of_view) }} mm
 from edge to edge.</p>
<div class="rows">
{% for row in rows %}
<div class="row"><h3>{{ row.name }}</h3><div class="tiles">
{% for tile in row.tiles %}
<figure><div class="frame"><img src="{{ tile.slice }}" alt="{{ row.name }}, slice {{ tile.number }}">
{% if tile.over %}<img class="over" src="{{ tile.over }}" alt="">{% endif %}
</div><figcaption>slice {{ tile.number }}</figcaption></figure>
{% endfor %}
</div></div>
{% endfor %}
</div>
{% if table.evidence is not none %}<p class="soft">{{ limits }}</p>{% endif %}
</section>
<footer>{{ research }} Made by fedmri-site predict at this hospital; nothing of it was sent anywhere.</footer>
</main></body></html>
"""
)
