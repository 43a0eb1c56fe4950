"""Patients who came, or whose images changed, after the site compared its own with the run's external ones.

HOME/twins/RUN.npz   the external patients' fingerprints, as the site was sent them; mode 0600

The site keeps what it was sent, and compares with it again before each round: nobody trains before they were compared, and the
coordinator is asked for nothing.
"""

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from client.round.left_out import OUTSIDE, SiteTwin, note_twins, noted_twins, outside_way, record_path
from client.round.site_context import SiteContext
from common.config.run import RunConfig
from common.data.cases import Site
from common.data.fingerprint import Fingerprint
from common.data.twins import find_twins, patient_fingerprint
from common.errors import FederationError
from common.files import write_atomic


def keep_external(context: SiteContext, run: str, external: Sequence[Fingerprint]) -> None:
    """Keep the fingerprints for the rounds of the run."""
    path, content = _path(context, run), BytesIO()
    tokens = np.concatenate([np.empty(0, np.uint64), *external])
    np.savez(content, sizes=np.array([one.size for one in external], np.int64), tokens=tokens)
    write_atomic(path, content.getvalue())
    os.chmod(path, 0o600)


def kept_external(context: SiteContext, run: str) -> list[Fingerprint]:
    """What was kept; nobody where the site was sent none.

    Raises:
        FederationError: the file is damaged.
    """
    path = _path(context, run)
    if not run or not path.is_file():
        return []
    try:
        with np.load(path, allow_pickle=False) as kept:
            return np.split(kept["tokens"], np.cumsum(kept["sizes"])[:-1]) if kept["sizes"].size else []
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise FederationError(f"{path}: cannot be read ({error}). Remove it, and have the run begun anew.") from error


def external_twins(site: Site, config: RunConfig, context: SiteContext, external: Sequence[Fingerprint]) -> list[SiteTwin]:
    """Who of the site's patients is an external one, and whether they leave."""
    own = [patient_fingerprint(case, context.cache) for case in site.cases]
    rows = sorted({twin.first for twin in find_twins(own, external)})
    way = outside_way(site.config.policy.twins, config.twins.with_external)
    return [SiteTwin(site.cases[row].id, OUTSIDE, leaves=way == "drop") for row in rows]


def compare_newcomers(site: Site, config: RunConfig, context: SiteContext, run: str) -> None:
    """Before a round: note who is an external patient and was not when the site compared first. The record decides what follows.

    Raises:
        FederationError: a file of the site's own is damaged.
    """
    external = kept_external(context, run)
    if not external:
        return
    policy, noted = noted_twins(context, run)
    known = {twin.patient for twin in noted if twin.at == OUTSIDE}
    new = [twin for twin in external_twins(site, config, context, external) if twin.patient not in known]
    if new:
        way = outside_way(site.config.policy.twins, config.twins.with_external)
        names = {twin.patient for twin in new}
        others = [twin for twin in noted if twin.patient not in names]
        note_twins(context, run, "refuse" if way == "refuse" else policy or way, [*others, *new])


def _path(context: SiteContext, run: str) -> Path:
    return record_path(context, run).with_suffix(".npz")
