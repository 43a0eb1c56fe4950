"""The page's and the terminal's words on the privacy audit: what was tried against each site's claim, and what came of it."""

from collections.abc import Mapping
from typing import Any

ALARM = """
{% for site, p in view.privacy if (p.get("audit") or {}).get("passed") is sameas false %}
<p class="note" role="alert"><b class="wrong">✕ Privacy claim REFUTED at {{ site }}.</b> Its audit found that the software does
not do what the epsilon below claims. Do not pass the model on. See Privacy.</p>
{% endfor %}
"""

AUDIT = """
<p style="margin-top:22px"><b>Would a lie be noticed? The audit of this claim</b></p>
{% if not view.privacy|selectattr("1.audit", "defined")|list %}
<p class="soft">Nobody has audited this claim: no audit was run here, and no hospital has sent one.</p>
{% else %}
<div class="scroll"><table><thead><tr><th scope="col">Site</th><th scope="col">Audit</th>
<th scope="col" class="num">Exact tests passed</th><th scope="col" class="num">Canaries: epsilon proved</th>
<th scope="col" class="num">Canaries: epsilon claimed</th><th scope="col" class="num">Membership AUC</th></tr></thead><tbody>
{% for site, p in view.privacy %}
{% set audit = p.get("audit") or {} %}
{% set canary = audit.get("canary") or {} %}
{% set checks = audit.get("checks") or [] %}
<tr><th scope="row"><b>{{ site }}</b></th>
<td class="nowrap">{% if audit.get("passed") is none %}not audited{% elif audit.passed %}passed{% else
%}<span class="wrong">✕ REFUTED</span>{% endif %}</td>
{% set right = checks|selectattr("passed")|list|length %}
<td class="num{% if right < checks|length %} wrong{% endif %}">{{
 "%d of %d"|format(right, checks|length) if checks else none }}</td>
<td class="num{% if canary.get("passed") is sameas false %} wrong{% endif %}">{{ canary.get("audited")|number }}</td>
<td class="num">{{ canary.get("claimed")|number }}</td><td class="num">{{ audit.get("membership_auc")|number }}</td></tr>
{% endfor %}</tbody></table></div>
{% for site, p in view.privacy %}{% for check in (p.get("audit") or {}).get("checks") or [] if not check.passed %}
<p style="margin-top:10px"><b>{{ site }}</b>: <span class="wrong">{{ check.name }}: failed</span>: {{ check.detail }}</p>
{% endfor %}{% endfor %}
<dl><dt>Audit</dt><dd>Passed means that nothing was found against the claim; that is no proof of it. REFUTED means that the claim
is wrong at that site.</dd>
<dt>Exact tests</dt><dd>The noise has the promised size and comes from no seed, patients are drawn at the claimed rate, and taking
out any one patient moves a step by no more than the norm allows.</dd>
<dt>Canaries</dt><dd>Made-up patients go through the same sampling, clipping and noise at a low epsilon of their own, where faults
show best. If more epsilon is proved than is claimed there, the claim is wrong.</dd>
<dt>Membership AUC</dt><dd>How often a patient who was trained on has a smaller loss than one who was not; 0.5 tells nothing.
The others come from elsewhere, in a simulation from the external hospital, and another scanner or another population moves this
figure too, so it refutes nothing by itself.</dd></dl>
{% endif %}
"""


def refutations(report: Mapping[str, Any]) -> list[str]:
    """One loud sentence for each site whose audit failed."""
    audits = {site: (claim or {}).get("audit") for site, claim in report["privacy"].items()}
    return [refutation(site, audit) for site, audit in audits.items() if audit and not audit["passed"]]


def refutation(site: str, audit: Mapping[str, Any]) -> str:
    """What failed there, in one loud sentence."""
    found = [f"{check['name']}: {check['detail']}" for check in audit["checks"] if not check["passed"]]
    canary = audit["canary"]
    if not canary["passed"]:
        found.append(f"canaries proved epsilon {canary['audited']:.2f} of {canary['claimed']:.2f} claimed")
    return f"PRIVACY CLAIM REFUTED at {site} ({'; '.join(found)}). Do not pass the model on."
