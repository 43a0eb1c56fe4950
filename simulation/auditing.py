"""After a private run: each site's audit, as its hospital would run it (`fedmri-site audit privacy`), for the report.

The canaries are made-up patients, who meet no site's data, so that one answer serves all sites. Asking once for each would only
give chance more occasions for a false alarm: the bound holds with a confidence of 95% each time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from client.privacy.audit import audit_privacy, audit_table, run_canaries
from common.config.run import RunConfig, config_from_json
from common.privacy.audit import CanaryAudit
from simulation.baselines import open_folders
from simulation.processes import Workers, side_by_side

CANARIES = "canaries"  # what progress calls the part that all sites share


@dataclass(frozen=True)
class AuditJob:
    """One site's audit, in plain values that a new process can take.

    Attributes:
        site: folder of its patients.
        external: folders of the patients that nobody trained on.
        config: as JSON.
        cache: of slices.
        model: the run's model.safetensors.
        canary: what the canaries have shown.
    """

    site: Path
    external: tuple[Path, ...]
    config: str
    cache: Path
    model: Path
    canary: CanaryAudit

    @property
    def name(self) -> str:
        """The site's, as in the report."""
        return self.site.name


def audit_sites(
    sites: Sequence[Path],
    external: Sequence[Path],
    config: RunConfig,
    cache: Path,
    model: Path,
    workers: Workers,
    on_done: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Audit every site, side by side.

    Args:
        sites: folders of the training hospitals.
        external: folders of the patients that were not trained on.
        config: of the run.
        cache: folder of the slices.
        model: the run's model file.
        workers: processes, or the cluster that has them.
        on_done: called with `CANARIES`, then with the name of each audited site.

    Returns:
        What `client.privacy.audit.audit_table` makes, by the site's name.
    """
    canary = run_canaries(torch.Generator().manual_seed(config.seed))
    on_done(CANARIES)
    jobs = [AuditJob(site, tuple(external), config.to_json(), cache, model, canary) for site in sites]
    return side_by_side(audit_site, jobs, workers, on_done)


def audit_site(job: AuditJob) -> dict[str, Any]:
    """One audit, here and now. Membership inference needs labelled patients on both sides, and is left out without them."""
    torch.set_num_threads(1)
    config = config_from_json(job.config)
    patients = open_folders((job.site,), config, job.cache)
    others = open_folders(job.external, config, job.cache)
    generator = torch.Generator().manual_seed(config.seed)
    model = job.model if len(patients.labelled) and len(others.labelled) else None
    result = audit_privacy(patients, config, generator, trained=model, others=others, canary=job.canary)
    return audit_table(result, config)
