"""`fedmri-sim survey`: what the site folders of a simulation hold; each folder's policy decides, as at a hospital."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from client.policy.asking import require_surveying, surveyed
from common.config.run import RunConfig
from common.config.site import find_sites
from common.data.cases import read_site
from common.data.survey import Answer, answer, site_facts
from common.errors import ConfigError, FedMRIError
from server.run.survey import as_json


def survey_folders(data: Path, config: RunConfig, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """As `server.run.survey.survey`.

    Args:
        data: folder of site folders.
        config: its classes and modalities are the groups.
        progress: called with how far the reading of a folder is.

    Raises:
        ConfigError: no site folder in it.
    """
    folders = find_sites(data)
    if not folders:
        raise ConfigError(f"--data {data}: expected a folder of site folders.")
    answers: dict[str, Answer] = {}
    failures: dict[str, str] = {}
    for folder in folders:
        try:
            site = read_site(folder, config, simulated=True)
            policy = site.config.policy
            require_surveying(policy, private=bool(site.config.privacy.epsilon), cohort=len(site.cases))
            facts = site_facts(site, config, partial(progress, f"reading {folder.name}"))
            answers[folder.name] = answer(facts, config, policy.min_patients, surveyed(policy))
        except FedMRIError as error:
            failures[folder.name] = str(error)
    return as_json(answers, failures)
