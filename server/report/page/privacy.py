"""The page's section on privacy: each site's epsilon, the terms of the claim, what stands outside it, what its audit found."""

from collections.abc import Mapping
from typing import Any

from server.report.audit_section import AUDIT
from server.report.page.values import listed, names, table

PRIVACY = (
    """
{% if view.privacy %}<section id="privacy"><h2>Privacy</h2>
<p class="soft">The most that what each site sends can give away about one unit of its data (differential privacy). A smaller
epsilon gives away less. What the ledger says counts all runs, at the site's own delta.</p>
<div class="scroll"><table><thead><tr><th scope="col">Site</th><th scope="col" class="num">Epsilon of this run</th>
<th scope="col" class="num">Delta</th><th scope="col" class="num">Epsilon in the site's ledger</th><th scope="col">Unit</th>
<th scope="col" class="num">Noise multiplier</th><th scope="col" class="num">Gradient norm at most</th>
<th scope="col" class="num">Sample rate</th><th scope="col" class="num">Steps</th></tr></thead><tbody>
{% for site, p in view.privacy %}<tr><th scope="row"><b>{{ site }}</b></th>
<td class="num">{% if p.get("epsilon") is none %}no bound{% else %}{{ p.get("epsilon")|number(3) }}{% endif %}</td>
<td class="num">{{ p.get("delta") }}</td><td class="num">{{ p.get("ledger_epsilon")|number(3) }}</td><td>{{ p.get("unit") }}</td>
{% for key in ("noise_multiplier", "max_grad_norm", "sample_rate", "steps") %}<td class="num">{{ p.get(key) }}</td>{% endfor %}
</tr>{% endfor %}</tbody></table></div>
{% set terms = view.privacy[0][1] %}<dl class="plain">
{% for key in ("adjacency", "mechanism", "composition") if terms.get(key) %}<dt>{{ key }}</dt><dd>{{ terms.get(key) }}</dd>
{% endfor %}{% if terms.get("outside") %}<dt>outside the claim</dt>
<dd>{{ terms.get("outside")|join("; ") }}</dd>{% endif %}</dl>"""
    + AUDIT
    + "</section>{% endif %}\n"
)

AGGREGATION = """
{% set together = view.aggregation %}
{% if together.get("secure") or together.get("site_level") %}<section id="aggregation"><h2>Aggregation</h2><dl class="plain">
{% if together.get("secure") %}<dt>secure aggregation</dt>
<dd>The server saw sums only, of {{ together.get("fewest") }} hospitals or more: no hospital's update, no weight. It trusts
the server to
hand out the hospitals' own keys.</dd>{% endif %}
{% if together.get("site_level") %}{% set level = together.site_level %}<dt>noise for whole hospitals</dt>
<dd>Epsilon {% if level.epsilon is none %}has no bound{% else %}{{ level.epsilon|number(3) }}{% endif %} at delta
{{ level.delta }} for one {{ level.unit }}, over {{ level.rounds }} rounds (noise multiplier {{ level.noise_multiplier }}, change
of a hospital at most {{ level.clip }}); the server is trusted. <b>Warning</b>: {{ level.warning }}.</dd>{% endif %}
</dl></section>{% endif %}
"""


def read(report: Mapping[str, Any]) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Each site's claim, with its audit where there is one."""
    return tuple((site, _claim(table(entry))) for site, entry in table(report["privacy"]).items())


def _claim(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The claim, in which an audit of another shape than ours counts as none."""
    audit = table(entry.get("audit"))
    entry = {name: value for name, value in entry.items() if name != "audit"} | {"outside": names(entry.get("outside"))}
    if not audit:
        return entry
    checks = [table(check) for check in listed(audit.get("checks"))]
    shown = [{"name": c.get("name"), "passed": c.get("passed") is True, "detail": c.get("detail")} for c in checks]
    passed = audit.get("passed") if isinstance(audit.get("passed"), bool) else None
    return {**entry, "audit": {**audit, "passed": passed, "checks": shown, "canary": table(audit.get("canary"))}}


def read_aggregation(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the server saw of the updates; a claim for whole hospitals has all its terms, known or not."""
    found = table(report.get("aggregation"))
    level = table(found.get("site_level"))
    terms = ("epsilon", "delta", "unit", "rounds", "noise_multiplier", "clip", "warning")
    return {**found, "site_level": {term: level.get(term) for term in terms} if level else None}
