"""A site's own privacy audit, taken into the report beside the epsilon that it tested.

It comes as JSON, by mail or stick (`fedmri-site audit privacy SITE --json`), and from a file of anyone's making: names, types,
ranges and sizes are checked, and so is whether its verdict follows from its own figures.
"""

import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from common.errors import ConfigError, FedMRIError
from common.privacy.audit import CHECKS, PARTS
from common.run_folder import REPORT_NAME
from server.report.mend import how_to_mend
from server.report.page.values import number
from server.report.privacy import Audit, decode_claims
from server.report.publish import write_report
from server.report.report import read_report

MAX_BYTES = 65_536
MAX_DETAIL = 300  # characters
MAX_EPSILON = 20.0  # canaries are sent at 1.5, and prove no more than this
MAX_GUESSES = 1_000_000
MAX_SETTING = 1e6

KEYS = {
    "audit": ("mechanism", "checks", "canary", "membership_auc", "passed"),
    "mechanism": ("noise_multiplier", "max_grad_norm", "sample_rate"),
    "check": ("name", "passed", "detail"),
    "canary": ("claimed", "audited", "delta", "guesses", "right"),
}


def read_audit(file: Path) -> Any:
    """The JSON of a file, not yet checked.

    Raises:
        FedMRIError: no file, too long, not UTF-8, not JSON, or a key twice.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise FedMRIError(f"{file}: expected what `fedmri-site audit privacy --json` prints ({error.strerror}).") from error
    if len(content) > MAX_BYTES:
        raise FedMRIError(f"{file}: expected an audit of at most {MAX_BYTES} bytes, got more.")
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FedMRIError(
            f"{file}: expected what `fedmri-site audit privacy --json` prints; not valid JSON ({error})."
        ) from error


def audit_entry(table: Any, claim: Mapping[str, Any]) -> dict[str, Any]:
    """Check an audit and give what report.json keeps of it.

    Args:
        table: as `client.privacy.audit.audit_table` makes it.
        claim: the site's entry under `privacy` in report.json, whose settings must be the audited ones.

    Raises:
        FedMRIError: names what was expected and what came.
    """
    _table("audit", table, "all of it")
    for key, value in _table("mechanism", table["mechanism"]).items():
        same = _is_number(value, 0, MAX_SETTING) and value == claim.get(key)
        _require(f"mechanism.{key}", same, f"{claim.get(key)}, as in the run", value)
    checks, canary = _checks(table["checks"]), _canary(table["canary"])
    auc = table["membership_auc"]
    _require("membership_auc", auc is None or _is_number(auc, 0, 1), "a number from 0 to 1, or null", auc)
    passed = canary["passed"] and all(check["passed"] for check in checks)
    _require("passed", table["passed"] is passed, f"{str(passed).lower()}, as its checks and canaries have it", table["passed"])
    return {"passed": passed, "checks": checks, "canary": canary, "membership_auc": auc}


def with_audit(report: Mapping[str, Any], site: str, table: Any) -> dict[str, Any]:
    """The report with a site's audit in it; an older one of that site is replaced.

    Raises:
        ConfigError: the run has no such site, or was not private.
        FedMRIError: an audit that is refused.
    """
    claims = report["privacy"]
    if not claims:
        raise ConfigError("The run was not private: its report claims no epsilon that an audit could stand beside.")
    if site not in claims:
        raise ConfigError(f"Site {site!r} is none of the run's private sites ({', '.join(claims)}).")
    claim = claims[site] or {}
    return {**report, "privacy": {**claims, site: {**claim, "audit": audit_entry(table, claim)}}}


def add_audit(run: Path, site: str, file: Path, *, force: bool = False) -> dict[str, Any]:
    """Put the audit that a hospital has sent into RUN's report, JSON and page.

    Args:
        run: the run folder.
        site: name of the hospital, as the report has it.
        file: the audit as JSON.
        force: replace the one that is there.

    Returns:
        What report.json now holds of it.

    Raises:
        ConfigError: no such site, a run without privacy, or an audit that stands there already.
        FedMRIError: no report, or an audit that is refused; the report stays as it was.
    """
    report = read_report(run)
    try:
        if not force and "audit" in (report["privacy"].get(site) or {}):
            raise ConfigError(f"{run / REPORT_NAME} already holds an audit of {site}. Give --force to replace it.")
        report = with_audit(report, site, read_audit(file))
        write_report(run, report)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, TemplateError) as error:
        raise FedMRIError(
            f"{run / REPORT_NAME}: expected a report as FedMRI writes it; it was changed or damaged ({type(error).__name__}). "
            f"{how_to_mend(run)}"
        ) from error
    entry: dict[str, Any] = report["privacy"][site]["audit"]
    return entry


def refutations(report: Mapping[str, Any]) -> list[str]:
    """A sentence for each site whose audit failed."""
    claims = decode_claims(report["privacy"])
    return [refutation(claim.site, claim.audit) for claim in claims if claim.audit and claim.audit.passed is False]


def refutation(site: str, audit: Audit) -> str:
    """The checks that failed at a site, in one sentence."""
    found = [f"{check.name}: {check.detail}" for check in audit.checks if not check.passed]
    if audit.canary_passed is False:
        found.append(f"canaries proved epsilon {number(audit.audited)} of {number(audit.claimed)} claimed")
    return f"PRIVACY CLAIM REFUTED at {site} ({'; '.join(found)}). Do not pass the model on."


def _checks(values: Any) -> list[dict[str, Any]]:
    """Each known check once: an audit that left one out has not passed it. Older audits had those of a step alone."""
    known = PARTS if type(values) is list and len(values) == len(PARTS) else CHECKS
    _require("checks", type(values) is list and len(values) == len(known), f"a list of {len(CHECKS)} checks", values)
    for place, check in enumerate(values):
        _table("check", check, f"checks[{place}]")
        _require(f"checks[{place}].passed", type(check["passed"]) is bool, "true or false", check["passed"])
        detail = check["detail"]
        good = type(detail) is str and len(detail) <= MAX_DETAIL and detail.isprintable()
        _require(f"checks[{place}].detail", good, f"at most {MAX_DETAIL} printable characters", detail)
    names = [check["name"] for check in values]
    right = all(type(name) is str for name in names) and sorted(names) == sorted(known)
    _require("the checks' names", right, f"{', '.join(known)}, each once", names)
    return [{key: check[key] for key in KEYS["check"]} for check in values]


def _canary(value: Any) -> dict[str, Any]:
    """What the canaries claimed and proved; whether they refute the claim is worked out here."""
    _table("canary", value)
    for key, high in (("claimed", MAX_EPSILON), ("audited", MAX_EPSILON), ("delta", 1)):
        _require(f"canary.{key}", _is_number(value[key], 0, high), f"a number from 0 to {high:g}", value[key])
    for key, high in (("guesses", MAX_GUESSES), ("right", value["guesses"])):
        good = type(value[key]) is int and _is_number(value[key], 0, high)
        _require(f"canary.{key}", good, f"a whole number from 0 to {high}", value[key])
    claimed, audited = float(value["claimed"]), float(value["audited"])
    return {"claimed": claimed, "audited": audited, "passed": audited <= claimed}


def _table(kind: str, value: Any, where: str = "") -> Mapping[str, Any]:
    """The value, which must be a table of exactly the kind's keys."""
    keys = KEYS[kind]
    good = isinstance(value, dict) and value.keys() == set(keys)
    _require(where or kind, good, f"a table of {', '.join(keys)}", list(value) if isinstance(value, dict) else value)
    found: Mapping[str, Any] = value
    return found


def _is_number(value: Any, low: float, high: float) -> bool:
    """False for NaN, infinities, and true and false."""
    return type(value) in (int, float) and low <= value <= high


def _require(where: str, good: bool, expected: str, value: Any) -> None:
    if not good:
        raise FedMRIError(f"Audit, {where}: expected {expected}; got {reprlib.repr(value)}.")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
