"""From a request's content to a reply's, plain or secure. Nothing is raised: only an error's public sentence leaves the site."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import RecordDict

from client.policy.asking import require_summed
from client.policy.keeping import keep_back
from client.policy.leaving import asked_arrays, require_leaving, require_norm
from client.round.calibrate import calibrate_site
from client.round.held_out import check_held_out
from client.round.secure_aggregation import (
    SiteSecrets,
    begin,
    keep_secrets,
    load_secrets,
    mask,
    open_ciphertexts,
    remember,
    require_new,
    share,
    unmask,
)
from client.round.site_context import SiteContext, find_site_context
from client.round.survey import survey_site
from client.round.train import require_same_code, require_wanted_run, train_site
from client.round.twins import answer_twins
from common.config.run import RunConfig, config_from_json
from common.config.site import SitePolicy, read_policy
from common.data.cases import Site
from common.errors import ConfigError, DataError, FederationError, FedMRIError
from common.messages.calibration import CALIBRATION
from common.messages.held_out import HELD_OUT
from common.messages.refused_by import note_rule
from common.messages.round import SiteReply, Task, read_task, write_reply, write_status
from common.messages.secure_aggregation import (
    OUT_OF_STEP,
    SECURE,
    AdvertiseKeys,
    MaskedInput,
    ShareKeys,
    Unmask,
    from_record,
    inputs_hash,
    write_stage_reply,
)
from common.messages.survey import SURVEY
from common.messages.twins import TWINS
from common.messages.update import Update
from common.messages.wire import WIRES
from common.models.arrays import flat
from common.privacy.site_level import clip_change
from common.secure.fixed_point import Values
from common.training.trainable import unlabelled_weight

logger = logging.getLogger("fedmri.client")


def answer(content: RecordDict, node_config: Mapping[str, Any], state: RecordDict) -> RecordDict:
    """Carry out a request and build the reply.

    Args:
        content: the request.
        node_config: of this node; a hospital's names its site.toml.
        state: the node's own memory, which outlives this message: secrets of a secure round.
    """
    task = Task(round=1, config="", code="", backbone="")
    try:
        task = read_task(content)
        context = find_site_context(task, node_config)
        if beside := _beside(content, task, context, state):
            leaving, site = beside
            require_leaving(leaving, content, site.config.policy)
            return keep_back(leaving, site.config.policy)
        if SECURE in content:
            return _secure(content, task, context, state)
        reply, site = train_site(content, task, context)
        leaving = write_reply(reply, WIRES[config_from_json(task.config).federation.wire])
        require_leaving(leaving, content, site.config.policy, reply.update)
        return keep_back(leaving, site.config.policy)
    except FedMRIError as error:
        logger.exception("The round failed at this site.")
        note_rule(state, error.rule)
        reply = SiteReply(task.site, task.round, error=_public(error, task), for_good=error.for_good)
    except Exception as error:  # of an unknown error not even the text may leave: it can hold a path or an identifier
        logger.exception("The round failed at this site.")
        note_rule(state, "unexpected")
        reply = SiteReply(task.site, task.round, error=f"an unexpected {type(error).__name__} at the site; its own log says more")
    return write_status(reply)


def _beside(content: RecordDict, task: Task, context: SiteContext, state: RecordDict) -> tuple[RecordDict, Site] | None:
    """The reply to what is no round of training, and the site; None where it is one."""
    if CALIBRATION in content:
        return calibrate_site(content, task, context)
    if SURVEY in content:
        return survey_site(task, context)
    if TWINS in content:
        return answer_twins(content, task, context, state)
    return check_held_out(content, task, context) if HELD_OUT in content else None


def _secure(content: RecordDict, task: Task, context: SiteContext, state: RecordDict) -> RecordDict:
    """One stage of a secure round. The secrets kept for it are wiped first: a stage that fails cannot be tried twice."""
    mine = load_secrets(state, context.name)
    keep_secrets(state, context.name, None)
    require_same_code(task)
    config, record = config_from_json(task.config), content[SECURE]
    stage = record.get("stage") if hasattr(record, "get") else None
    status = SiteReply(context.name, task.round)
    kept: SiteSecrets | None = None
    message: Any
    if stage == AdvertiseKeys.stage:
        require_summed(content, read_policy(context.folder, simulated=context.simulated))
        asked = from_record(record, AdvertiseKeys)
        require_new(state, context.name, asked.request)
        require_wanted_run(context, task, config)  # before anybody trains: a refusal later would cost the others their round
        kept, message = begin(asked, config)
    elif mine is None:
        raise FederationError("This site has no secure round open.", public=f"{OUT_OF_STEP}: no round is open at the site")
    elif stage == ShareKeys.stage:
        kept, message = share(from_record(record, ShareKeys), mine)
    elif stage == MaskedInput.stage:
        inputs = inputs_hash(config, task.round, asked_arrays(content))
        require_new(state, context.name, inputs)
        kept = replace(open_ciphertexts(from_record(record, MaskedInput), mine), inputs=inputs)
        reply, site = train_site(content, task, context, sealed=kept.request)  # only now that the round can succeed
        equal = config.site_level.enabled  # all sites weigh the same; the largest weight counts finest
        weight = config.secure.max_weight if equal else _weight(reply.weight(unlabelled_weight(config, task.round)), config)
        message = mask(kept, config, _change(reply.update, config, site.config.policy), weight)
        status = SiteReply(context.name, task.round, epsilon=reply.epsilon, data=reply.data)
    else:
        require_summed(content, read_policy(context.folder, simulated=context.simulated))
        require_new(state, context.name, mine.inputs)
        message = unmask(from_record(record, Unmask), mine)
        remember(state, context.name, mine.request, mine.inputs)
    keep_secrets(state, context.name, kept)
    return write_stage_reply(status, message)


def _public(error: FedMRIError, task: Task) -> str:
    """What the coordinator is told. In a private run not even that it was a patient's file: who is there would be told by it."""
    if not isinstance(error, DataError):
        return error.public
    try:
        return FedMRIError.public_default if config_from_json(task.config).privacy.enabled else error.public
    except ConfigError:
        return error.public


def _weight(weight: float, config: RunConfig) -> float:
    """The weight as it is counted: a limit that the server moves must not tell by a refusal how many patients there are."""
    most = config.secure.max_weight
    if weight > most:
        logger.warning("This site counts as %g patients in the sum, not %g: secure.max_weight of the run.", most, weight)
    return min(weight, most)


def _change(update: Update, config: RunConfig, policy: SitePolicy) -> Values:
    """The update as one vector, shortened as a whole where the run's limits are smaller; refused by the hospital's alone.

    Raises:
        PolicyError: it is larger than `policy.max_update_norm`.
    """
    require_norm(update.norm, policy)
    change = flat(update.change)
    if config.site_level.enabled:
        change = clip_change(change, config.site_level.clip)
    worst, norm = float(np.abs(change).max(initial=0.0)), float(np.linalg.norm(change))
    allowed = config.federation.max_update_norm or norm
    share = min(1.0, config.secure.update_range / worst, allowed / norm) if worst else 1.0
    if share < 1.0:
        logger.warning("The update is shortened to %.3g of itself: secure.update_range or federation.max_update_norm.", share)
        change = change * (share * (1 - 1e-9))  # so that rounding does not lead beyond the limit again
    return change
