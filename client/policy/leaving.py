"""What may leave the hospital: rules over a reply, beside the request that it answers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.policy.asking import require_calibrating, require_comparing, require_one_thing, secure_stage, surveyed
from client.policy.keeping import COUNTS
from client.policy.rule import named_by, refused
from common.config.run import config_from_json
from common.config.site import SitePolicy
from common.data.survey import INTENSITIES
from common.errors import ConfigError, FederationError
from common.messages.calibration import CALIBRATION, REFERENCE, SUMS, form, read_asked, read_sums, smallest_cohort
from common.messages.held_out import HELD_OUT
from common.messages.leaving import KINDS, unlisted
from common.messages.round import (
    ARRAYS,
    CHANGE,
    METRICS,
    ROUND,
    SITE,
    read_task,
    read_update,
    unpack_array,
)
from common.messages.secure_aggregation import (
    MASKED,
    SECURE,
    AdvertisedKeys,
    KeyShares,
    MaskedInput,
    UnmaskShares,
    from_record,
    read_masked,
)
from common.messages.survey import SURVEY, read_answer
from common.messages.twins import REPLIES, SEALED, TWINS, Compared, Sent, read_sealed, stage_of
from common.messages.update import Update
from common.messages.wire import WIRES
from common.models.arrays import Arrays, check_arrays, trained_at_sites
from common.text import printable
from common.training.shared import shared

STAGE_REPLIES: Mapping[str, type] = {kind.stage: kind for kind in (AdvertisedKeys, KeyShares, UnmaskShares)}


def require_leaving(reply: RecordDict, asked: RecordDict, policy: SitePolicy, update: Update | None = None) -> None:
    """Refuse a reply whose arrays may not leave.

    Args:
        reply: its `change` is absent after a failure, and in a secure round, where `masked` is what leaves.
        asked: the request that it answers: what it may hold at most.
        policy: the hospital's.
        update: what the caller itself has packed as the reply's change; None: the change is read out of the reply.

    Raises:
        PolicyError: another record than agreed, an array that was not asked for or that `policy.arrays` does not name, values
            that are not finite, more bytes than `policy.max_megabytes`, a change beyond `policy.max_update_norm`, or an update
            in the clear under `policy.secure_only`.
    """
    _require_records(reply, {METRICS, SITE, *_holding(asked)}, policy)
    size = reply_bytes(reply)
    if size > policy.max_megabytes * 1e6:
        text = f"the reply has {size / 1e6:.3f} MB, policy.max_megabytes is {policy.max_megabytes:g}"
        raise refused("max_megabytes", text, "the update has more bytes than may leave the site")
    if CHANGE in reply:
        _require_update(reply, asked, policy, update)
    for name in sorted(RULES.keys() & {*reply, *({SUMS} if CALIBRATION in asked else ())}):
        RULES[name](reply, asked, policy)


def _holding(asked: RecordDict) -> set[str]:
    """Names of the records that hold what a request asks for.

    Raises:
        PolicyError: it asks for several things: the rules of one are not those of another.
    """
    wanted = require_one_thing(asked)
    if TWINS in asked:
        return {TWINS, SEALED} if stage_of(asked) == Sent.stage else {TWINS}
    if HELD_OUT in asked:
        return set()
    if SECURE in asked:
        return {MASKED if secure_stage(asked) == MaskedInput.stage else SECURE}
    return {CALIBRATION: {SUMS}, SURVEY: {SURVEY}}.get(wanted[0], set()) if wanted else {CHANGE}


def _require_records(reply: RecordDict, allowed: set[str], policy: SitePolicy) -> None:
    """Each record must be one of those allowed, and hold nothing but what is listed (`common.messages.leaving`)."""
    for name, record in reply.items():
        if name not in allowed or not isinstance(record, KINDS[name]):
            if name == CHANGE and policy.secure_only:
                raise refused("secure_only", "an update in the clear", "the site takes part in secure aggregation only")
            raise refused("records", f"the reply holds a record {printable(name, 60)!r}", "the reply holds more than was agreed")
    if extra := next(unlisted(reply), ""):
        raise refused("records", f"the reply holds {printable(extra, 120)!r}", "the reply holds more than was agreed")


def _require_update(reply: RecordDict, asked: RecordDict, policy: SitePolicy, update: Update | None) -> None:
    """The rules for an update in the clear."""
    if policy.secure_only:
        raise refused("secure_only", "an update in the clear", "the site takes part in secure aggregation only")
    before = trained_at_sites(shared_arrays(asked))
    try:
        if update is None:
            update = read_update(reply, before, WIRES[config_from_json(read_task(asked).config).federation.wire])
        else:
            check_arrays(update.change, before)
    except FederationError as error:
        raise refused("records", str(error), "the update is not of the form that was asked for") from error
    _require_named(before, policy)
    require_norm(update.norm, policy)


def _require_stage_reply(reply: RecordDict, asked: RecordDict, policy: SitePolicy) -> None:
    """The rules for one stage of a secure round: the reply holds its message and nothing else."""
    stage = str(secure_stage(asked))
    try:
        if stage == MaskedInput.stage:
            before = shared_arrays(asked)
            read_masked(reply, 1 + sum(array.size for array in before.values()))
            _require_named(before, policy)
        else:
            _require_nothing_beside(reply.get(SECURE), from_record(reply.get(SECURE), STAGE_REPLIES[stage]))
    except (FederationError, KeyError) as error:
        raise refused("records", str(error), "the reply holds more than was agreed") from error


def _require_answer(reply: RecordDict, asked: RecordDict, policy: SitePolicy) -> None:
    """The rules for the answer to a survey: topics that may be told, and counts in steps of the hospital's own minimum."""
    del asked  # a survey has no settings: nobody can ask for less, and subtract
    try:
        answer = read_answer(reply)
    except FederationError as error:
        raise refused("records", str(error), "the reply holds more than was agreed") from error
    barred = {*answer.topics, *([INTENSITIES] if answer.landmarks or answer.scales else [])} - set(surveyed(policy))
    if barred:
        raise refused("survey", f"the answer tells {sorted(barred)}", "the reply holds more than was agreed")
    if answer.least < policy.min_patients:
        raise refused("min_patients", f"counts in steps of {answer.least}", "the reply holds more than was agreed")


def _require_told(reply: RecordDict, asked: RecordDict, policy: SitePolicy) -> None:
    """The rules for a message of the comparison of patients: it holds what its stage has, and a number only if that may leave."""
    require_comparing(policy)
    try:
        told: object = from_record(reply.get(TWINS), REPLIES[stage_of(asked)])
        _require_nothing_beside(reply.get(TWINS), told)
        if isinstance(told, Sent):
            read_sealed(reply.get(SEALED), SEALED)
    except (FederationError, KeyError) as error:
        raise refused("records", str(error), "the reply holds more than was agreed") from error
    if isinstance(told, Compared) and (told.shared or told.left_out) and not policy.share_twins:
        raise refused("share_twins", "it is not set, and the reply has a number", "the reply holds more than was agreed")


def _require_nothing_beside(record: object, message: Any) -> None:
    """Refuse fields that the message does not have.

    Raises:
        FederationError: there is one.
    """
    named = {field.name for field in fields(message)} | {"stage"}
    if isinstance(record, ConfigRecord) and set(record) - named:
        raise FederationError(f"fields {sorted(printable(name, 40) for name in set(record) - named)[:3]}")


def _require_sums(reply: RecordDict, asked: RecordDict, policy: SitePolicy) -> None:
    """The rules for calibration sums: exactly those that were asked for, of enough patients, and no loss beside them."""
    beside = reply.metric_records.get(METRICS, MetricRecord()).keys() - {*COUNTS, ROUND}
    if beside:
        raise refused("records", f"metrics {sorted(beside)[:3]}", "the reply holds more than was agreed")
    if SUMS not in reply:
        return
    try:
        config = config_from_json(read_task(asked).config)
        sums = read_sums(reply, form(read_asked(asked, config), config, scored=REFERENCE in asked))
    except (FederationError, ConfigError) as error:
        raise refused("records", str(error), "the sums are not of the form that was asked for") from error
    least = min(smallest_cohort(sums), policy.min_patients)
    require_calibrating(policy, private=False, cohort=int(least))


RULES: Mapping[str, Callable[[RecordDict, RecordDict, SitePolicy], None]] = {
    SUMS: _require_sums,
    SURVEY: _require_answer,
    TWINS: _require_told,
    MASKED: _require_stage_reply,
    SECURE: _require_stage_reply,
}


def _require_named(arrays: Arrays, policy: SitePolicy) -> None:
    barred = [name for name in arrays if not named_by(name, policy.arrays)]
    if barred:
        text = f"policy.arrays does not name {printable(barred[0], 80)!r} (and {len(barred) - 1} others)"
        raise refused("arrays", text, "the update holds arrays that may not leave the site")


def asked_arrays(asked: RecordDict) -> Arrays:
    """The arrays of a request.

    Raises:
        PolicyError: it has none, or others than float32.
    """
    try:
        return _read(asked.get(ARRAYS), "request")
    except FederationError as error:
        raise refused("records", str(error), "the request's arrays cannot be read") from error


def shared_arrays(asked: RecordDict) -> Arrays:
    """The arrays of a request whose change may leave: not those that the run's sites keep to themselves (`personal.keep`).

    Raises:
        PolicyError: as `asked_arrays`, or a request whose configuration cannot be read.
    """
    try:
        task = read_task(asked)
        return shared(asked_arrays(asked), config_from_json(task.config), task.round)
    except (FederationError, ConfigError) as error:
        raise refused("records", str(error), "the request cannot be read") from error


def require_norm(norm: float, policy: SitePolicy) -> None:
    """Refuse a change, all arrays together, beyond `policy.max_update_norm`.

    Raises:
        PolicyError: it is.
    """
    if policy.max_update_norm and not norm <= policy.max_update_norm:
        text = f"the update's norm is {norm:.4g}, policy.max_update_norm is {policy.max_update_norm:g}"
        raise refused("max_update_norm", text, "the update is larger than may leave the site")


def reply_bytes(content: RecordDict) -> int:
    """Bytes of all arrays and of all byte values: what a message carries beyond names and numbers."""
    arrays = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    values = [value for record in content.config_records.values() for value in record.values()]
    return arrays + sum(len(item) for value in values for item in _items(value) if isinstance(item, bytes | str))


def _items(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else (value,)


def _read(record: object, where: str) -> Arrays:
    """Arrays whose names are not known beforehand: float32, of the shapes in their own headers."""
    if not isinstance(record, ArrayRecord):
        raise refused("records", f"the {where} has no arrays", "the reply holds more than was agreed")
    return {name: unpack_array(name, array, tuple(map(int, array.shape)), "<f4") for name, array in sorted(record.items())}
