"""Which patients a site leaves out of a run because they are at another hospital too: the site's own record of it.

HOME/twins/RUN.json   the policy, and by the site's own ids who has a twin: an external patient, or one of another hospital

Whose twin a patient is, nobody here knows. Nothing of it travels.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from client.round.site_context import SiteContext, home_folder
from common.data.cases import TWIN_ELSEWHERE, Site
from common.errors import FederationError, PolicyError
from common.files import write_atomic
from common.messages.held_out import THEIRS

KEPT_BACK = "the site has patients who are at another hospital of the run, or are external ones, and does not train with them"
ELSEWHERE, OUTSIDE = "another hospital", "the external hospital"


def outside_way(policy: str, run: str) -> str:
    """What becomes of a patient who is an external one: "drop", "refuse" or "keep".

    Args:
        policy: the site's `policy.twins`; "off" and "keep" say nothing of external patients.
        run: `twins.with_external` of the run.
    """
    return policy if policy in ("drop", "refuse") else run


@dataclass(frozen=True)
class SiteTwin:
    """A patient of this site who is somewhere else too."""

    patient: str
    at: str  # in words
    leaves: bool  # takes no part in this run


def note_twins(context: SiteContext, run: str, policy: str, twins: Sequence[SiteTwin]) -> None:
    """Write the record, for the hospital's eyes and for each round of the run."""
    path = record_path(context, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"run": run, "policy": policy, "twins": [asdict(twin) for twin in twins]}
    write_atomic(path, json.dumps(said, indent=1).encode())
    os.chmod(path, 0o600)


def noted_twins(context: SiteContext, run: str) -> tuple[str, list[SiteTwin]]:
    """The policy and the twins of the record; nobody where there is none.

    Raises:
        FederationError: the site's own record is damaged.
    """
    path = record_path(context, run)
    if not run or not path.is_file():
        return "", []
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return str(said["policy"]), [SiteTwin(**one) for one in said["twins"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FederationError(f"{path}: cannot be read ({error}). Remove it, and have the run begun anew.") from error


def without_twins(site: Site, context: SiteContext, run: str) -> Site:
    """The site as it trains in this run.

    Raises:
        PolicyError: the policy refused it.
        FederationError: the site's own record is damaged.
    """
    twins = require_unrefused(context, run)
    left_out = [TWIN_ELSEWHERE.of(twin.patient) for twin in twins if twin.leaves]
    return replace(site, findings=(*site.findings, *left_out)) if left_out else site


def require_unrefused(context: SiteContext, run: str) -> list[SiteTwin]:
    """The twins of the record, where they are no reason to refuse the run.

    Raises:
        PolicyError: the policy, or the run, refused it for them.
        FederationError: the site's own record is damaged.
    """
    policy, twins = noted_twins(context, run)
    require_wanted(context, run, policy, twins)
    return twins


def require_wanted(context: SiteContext, run: str, policy: str, twins: Sequence[SiteTwin]) -> None:
    """Refuse the run where the policy does and somebody has a twin.

    Raises:
        PolicyError: so it is.
    """
    if twins and policy == "refuse":
        text = (
            f"{len(twins)} patients are at another hospital of the run too, or external ones: {record_path(context, run)} names "
            "them, and policy.twins or the run refuses to train then. Leave them out (exclude), and have the run begun anew."
        )
        outside = all(twin.at == OUTSIDE for twin in twins)
        rule = "external-patients" if outside else "policy.twins"
        raise PolicyError(text, public=THEIRS if outside else KEPT_BACK, rule=rule)


def record_path(context: SiteContext, run: str) -> Path:
    """A hospital's lies beside its site.toml; a virtual site's in the cache. What the coordinator calls a run is no path."""
    home = context.cache / "sites" / context.name if context.simulated else home_folder(context)
    return home / "twins" / f"{hashlib.sha256(run.encode()).hexdigest()[:16]}.json"
