"""The standard intensity scale of virtual sites, before the run: what the server would make of their landmarks.

Here, and not by an exchange, so that the cache is filled by it once, and baselines and releases of the experiment have it, too.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from common.config.run import load_config
from common.data.cases import read_site
from common.data.survey import INTENSITIES, Answer, answer, site_facts
from common.errors import DataError
from server.run.standard import mean_standard
from simulation.experiment_plan import Experiment


def with_own_standard(plan: Experiment, refused: Sequence[str], note: Callable[[str], None]) -> Experiment:
    """The experiment with `data.standard` of its training sites, where it harmonises and has none; else as it is.

    Args:
        plan: of the experiment.
        refused: training sites that cannot be used.
        note: called with a sentence on what was found.

    Raises:
        DataError: no volume of any site has contrast.
    """
    data = plan.config.data
    if not data.harmonise or data.standard:
        return plan
    answers: dict[str, Answer] = {}
    for name in (name for name in plan.sites if name not in refused):
        site = read_site(plan.data / name, plan.config, simulated=True)
        answers[name] = answer(site_facts(site, plan.config), plan.config, site.config.policy.min_patients, [INTENSITIES])
    standard = mean_standard(answers, plan.config)
    if not standard:
        raise DataError("data.harmonise: no training site has a volume with landmarks. Set data.harmonise = false.")
    note(f"Standard intensity scale of {', '.join(row.name for row in standard)}, by {', '.join(answers)}.")
    rows = [asdict(row) for row in standard]
    texts = [f"{{name = {json.dumps(row['name'])}, landmarks = {json.dumps(list(row['landmarks']))}}}" for row in rows]
    settings = (*plan.settings, f"data.standard=[{', '.join(texts)}]")
    return replace(plan, settings=settings, config=load_config(plan.source, settings))
