"""A site's answer to a survey, and its memory of the last one.

HOME/survey/last.json   the last answer, and a hash of each patient that it was made of

The same answer is repeated until as many patients as the minimum have come, gone or changed: the difference of two answers must
not tell of one patient. A survey with other groups (classes, modalities) is refused until then.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.policy.asking import require_surveying, surveyed
from client.round.site_context import SiteContext, home_folder
from client.round.train import require_same_code
from common.config.run import config_from_json
from common.data.cases import Site, read_site
from common.data.survey import Answer, Facts, answer, definition, site_facts
from common.errors import FederationError, PolicyError
from common.files import write_atomic
from common.messages.round import SiteReply, Task
from common.messages.survey import write_answer

OTHER = "the site has answered a survey with other groups about the same patients"


def survey_site(task: Task, context: SiteContext) -> tuple[Any, Site]:
    """The reply, and the site.

    Raises:
        PolicyError: the policy tells nothing, or not of so few; or another survey of the same patients was answered.
        FederationError, DataError, ConfigError: other code, or a folder that is refused.
    """
    require_same_code(task)
    config = config_from_json(task.config)
    site = read_site(context.folder, config, simulated=context.simulated)
    policy = site.config.policy
    require_surveying(policy, private=bool(site.config.privacy.epsilon), cohort=len(site.cases))
    facts, topics = site_facts(site, config), surveyed(policy)
    told = answer(facts, config, policy.min_patients, topics)
    if not context.simulated:
        asked = {"definition": definition(config), "topics": sorted(topics), "least": policy.min_patients}
        told = settled(home_folder(context) / "survey" / "last.json", facts, told, asked)
    return write_answer(SiteReply(context.name, task.round), told), site


def settled(path: Path, facts: Sequence[Facts], new: Answer, asked: Mapping[str, Any]) -> Answer:
    """The new answer, written down as the last; or the last one again, where fewer patients changed than the minimum.

    Args:
        path: of the last answer.
        facts: of everybody, now.
        new: of these.
        asked: groups, topics and minimum: of an answer with others nothing is told until enough has changed.

    Raises:
        PolicyError: so it is.
        FederationError: the last answer's file is damaged.
    """
    now = {one.id: one.digest for one in facts}
    try:
        last = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        before = last["patients"] if last else {}
        same, told = (last["asked"] == dict(asked), Answer(**last["answer"])) if last else (True, new)
        changed = sum(now.get(one) != before.get(one) for one in now.keys() | before.keys())
        least = max(new.least, int(last["asked"]["least"])) if last else new.least
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FederationError(f"{path}: cannot be read ({error}). Remove it if no survey was answered before.") from error
    if last and changed < least:
        if not same:
            raise PolicyError(f"{OTHER}: {changed} changed, {least} must. {path} holds the last answer.", public=OTHER)
        return told
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"asked": dict(asked), "patients": now, "answer": asdict(new)}, indent=1).encode())
    os.chmod(path, 0o600)
    return new
