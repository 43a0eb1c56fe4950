"""The page's section on privacy: each site's epsilon, the terms of the claim, what stands outside it, what its audit found."""

from collections.abc import Mapping
from typing import Any

from server.report.page.values import listed, names, table


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
