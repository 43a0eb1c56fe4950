"""What the hospital lets run and leave: plain rules over a request and the reply to it.

The same rules are held twice: by the bundle's own code (`client.round.dispatch`), and outside it by the gate (`client.gate`),
which is the hospital's installed code and trusts nothing that a bundle made.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from common.config.run import config_from_json
from common.config.site import SitePolicy, read_hours
from common.data.survey import INTENSITIES, TOPICS
from common.errors import ConfigError, FederationError, PolicyError
from common.messages.calibration import CALIBRATION, REFERENCE, SUMS, form, read_asked, read_sums, smallest_cohort
from common.messages.held_out import HELD_OUT
from common.messages.leaving import KINDS, unlisted
from common.messages.released_model import MODEL
from common.messages.round import (
    ARRAYS,
    CHANGE,
    COUNTS_SHARED,
    EPSILON,
    ERROR,
    FOR_GOOD,
    LABELLED,
    MAX_NAME,
    MAX_TEXT,
    METRICS,
    NAME,
    NUM_EXAMPLES,
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
    AdvertiseKeys,
    KeyShares,
    MaskedInput,
    Unmask,
    UnmaskShares,
    from_record,
    read_masked,
)
from common.messages.survey import SURVEY, read_answer
from common.messages.twins import REPLIES, SEALED, TWINS, Compared, Sent, read_sealed, stage_of
from common.messages.update import Update
from common.messages.weights import WEIGHTS
from common.models.arrays import Arrays, check_arrays, trained_at_sites
from common.text import printable

COUNTS = (NUM_EXAMPLES, LABELLED)
POLICY_KEYS = frozenset(key.name for key in fields(SitePolicy))
STAGE_REPLIES: Mapping[str, type] = {kind.stage: kind for kind in (AdvertisedKeys, KeyShares, UnmaskShares)}


def require_hours(policy: SitePolicy, now: datetime) -> None:
    """Refuse work outside the hospital's hours; `now` is local time.

    Raises:
        PolicyError: it is outside `policy.hours`.
    """
    if not policy.hours:
        return
    begin, end = read_hours(policy.hours)
    minute = now.hour * 60 + now.minute
    inside = begin <= minute < end if begin < end else minute >= begin or minute < end
    if not inside:
        raise PolicyError(
            f"policy.hours of site.toml is {policy.hours}, and it is {now:%H:%M}: the site does not train now.",
            public="the site does not train at this time of day",
            rule="policy.hours",
        )


def require_calibrating(policy: SitePolicy, *, private: bool, cohort: int) -> None:
    """Refuse to send the sums that calibrate a model (`common.messages.calibration`).

    Args:
        policy: `share_calibration`, `secure_only` and `min_patients` are read.
        private: the site, or the run, trains with differential privacy only: the sums have no noise.
        cohort: the smallest group of patients that they would be of.

    Raises:
        PolicyError: the policy does not say that they may leave, or not in the clear, or not of so few.
    """
    if not policy.share_calibration:
        raise _refused("share_calibration", "it is not set", "the site does not share sums for calibration")
    if policy.secure_only:
        raise _refused("secure_only", "sums in the clear", "the site takes part in secure aggregation only")
    if private:
        text = (
            "site.toml sets a privacy budget, or the run is private; sums for calibration have no noise. Nothing left the site."
        )
        raise PolicyError(text, public="the site shares nothing without differential privacy", rule="privacy.epsilon")
    if cohort < policy.min_patients:
        text = f"sums over {cohort} patients, policy.min_patients is {policy.min_patients}"
        raise _refused("min_patients", text, "too few patients are held back at the site, or train there, to share sums")


def require_summed(asked: RecordDict, policy: SitePolicy) -> None:
    """Refuse a stage of a secure round whose sum would be of too few sites: who knows the others' updates knows this one's.

    Args:
        asked: the request; of other stages than the first and the last nothing is asked.
        policy: `min_summed` is read.

    Raises:
        PolicyError: fewer than `policy.min_summed` need stay, or have stayed.
        FederationError: the stage's message cannot be read.
    """
    stage = secure_stage(asked)
    if stage == AdvertiseKeys.stage:
        summed = from_record(asked.get(SECURE), AdvertiseKeys).threshold
    elif stage == Unmask.stage:
        summed = len(from_record(asked.get(SECURE), Unmask).survivors)
    else:
        return
    if summed < policy.min_summed:
        text = f"a sum of {summed} sites, policy.min_summed is {policy.min_summed}"
        raise _refused("min_summed", text, f"the site takes part in sums of {policy.min_summed} sites or more only")


def surveyed(policy: SitePolicy) -> list[str]:
    """The topics that a survey may be told."""
    return [topic for topic in TOPICS if _named(topic, policy.survey)]


def require_surveying(policy: SitePolicy, *, private: bool, cohort: int) -> None:
    """Refuse to answer a survey.

    Args:
        policy: `survey` and `min_patients` are read.
        private: the site trains with differential privacy only: counts have no noise.
        cohort: the number of patients.

    Raises:
        PolicyError: no topic may be told, or not without noise, or not of so few.
    """
    if not surveyed(policy):
        raise _refused("survey", "it names no topic", "the site answers no surveys")
    if private:
        text = "site.toml sets a privacy budget, and counts have no noise. Nothing left the site."
        raise PolicyError(text, public="the site shares nothing without differential privacy", rule="privacy.epsilon")
    if cohort < policy.min_patients:
        text = f"{cohort} patients, policy.min_patients is {policy.min_patients}"
        raise _refused("min_patients", text, "the site has too few patients to answer surveys")


def require_comparing(policy: SitePolicy) -> None:
    """Refuse to compare patients with other hospitals'.

    Raises:
        PolicyError: the policy has it off.
    """
    if policy.twins == "off":
        raise _refused("twins", "it is off", "the site does not compare its patients with other hospitals'")


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
        raise _refused("max_megabytes", text, "the update has more bytes than may leave the site")
    if CHANGE in reply:
        _require_update(reply, asked, policy, update)
    for name in sorted(RULES.keys() & {*reply, *({SUMS} if CALIBRATION in asked else ())}):
        RULES[name](reply, asked, policy)


def require_taking(policy: SitePolicy, sha256: str) -> None:
    """Refuse frozen weights that come from the coordinator.

    Args:
        policy: `take_weights` and `backbone_sha256` are read.
        sha256: of the weights that it offers.

    Raises:
        PolicyError: they come by file only, or are not the pinned ones.
    """
    if not policy.take_weights:
        raise _refused("take_weights", "it is not set", "the site takes backbone weights by file only")
    if policy.backbone_sha256 and policy.backbone_sha256 != sha256:
        text = f"pinned {policy.backbone_sha256[:12]}, offered {sha256[:12]}"
        raise _refused("backbone_sha256", text, "the run is not the one that the site pinned (backbone_sha256)")


def require_keeping(policy: SitePolicy) -> None:
    """Refuse a released model.

    Raises:
        PolicyError: the policy keeps none.
    """
    if not policy.keep_models:
        raise _refused("keep_models", "it is not set", "the site keeps no released models")


def require_one_thing(asked: RecordDict) -> list[str]:
    """The names of the records that say what a request is for, none where it is for training.

    Raises:
        PolicyError: it asks for several things: the rules of one are not those of another.
    """
    wanted = [name for name in (CALIBRATION, SURVEY, TWINS, HELD_OUT, SECURE, WEIGHTS, MODEL) if name in asked]
    if len(wanted) > 1:
        raise _refused("records", f"the request asks for {' and '.join(wanted)}", "the request asks for several things at once")
    return wanted


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
                raise _refused("secure_only", "an update in the clear", "the site takes part in secure aggregation only")
            raise _refused("records", f"the reply holds a record {printable(name, 60)!r}", "the reply holds more than was agreed")
    if extra := next(unlisted(reply), ""):
        raise _refused("records", f"the reply holds {printable(extra, 120)!r}", "the reply holds more than was agreed")


def _require_update(reply: RecordDict, asked: RecordDict, policy: SitePolicy, update: Update | None) -> None:
    """The rules for an update in the clear."""
    if policy.secure_only:
        raise _refused("secure_only", "an update in the clear", "the site takes part in secure aggregation only")
    before = trained_at_sites(asked_arrays(asked))
    try:
        if update is None:
            update = read_update(reply, before)
        else:
            check_arrays(update.change, before)
    except FederationError as error:
        raise _refused("records", str(error), "the update is not of the form that was asked for") from error
    _require_named(before, policy)
    require_norm(update.norm, policy)


def _require_stage_reply(reply: RecordDict, asked: RecordDict, policy: SitePolicy) -> None:
    """The rules for one stage of a secure round: the reply holds its message and nothing else."""
    stage = str(secure_stage(asked))
    try:
        if stage == MaskedInput.stage:
            before = asked_arrays(asked)
            read_masked(reply, 1 + sum(array.size for array in before.values()))
            _require_named(before, policy)
        else:
            _require_nothing_beside(reply.get(SECURE), from_record(reply.get(SECURE), STAGE_REPLIES[stage]))
    except (FederationError, KeyError) as error:
        raise _refused("records", str(error), "the reply holds more than was agreed") from error


def _require_answer(reply: RecordDict, asked: RecordDict, policy: SitePolicy) -> None:
    """The rules for the answer to a survey: topics that may be told, and counts in steps of the hospital's own minimum."""
    del asked  # a survey has no settings: nobody can ask for less, and subtract
    try:
        answer = read_answer(reply)
    except FederationError as error:
        raise _refused("records", str(error), "the reply holds more than was agreed") from error
    barred = {*answer.topics, *([INTENSITIES] if answer.landmarks else [])} - set(surveyed(policy))
    if barred:
        raise _refused("survey", f"the answer tells {sorted(barred)}", "the reply holds more than was agreed")
    if answer.least < policy.min_patients:
        raise _refused("min_patients", f"counts in steps of {answer.least}", "the reply holds more than was agreed")


def _require_told(reply: RecordDict, asked: RecordDict, policy: SitePolicy) -> None:
    """The rules for a message of the comparison of patients: it holds what its stage has, and a number only if that may leave."""
    require_comparing(policy)
    try:
        told: object = from_record(reply.get(TWINS), REPLIES[stage_of(asked)])
        _require_nothing_beside(reply.get(TWINS), told)
        if isinstance(told, Sent):
            read_sealed(reply.get(SEALED), SEALED)
    except (FederationError, KeyError) as error:
        raise _refused("records", str(error), "the reply holds more than was agreed") from error
    if isinstance(told, Compared) and (told.shared or told.left_out) and not policy.share_twins:
        raise _refused("share_twins", "it is not set, and the reply has a number", "the reply holds more than was agreed")


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
        raise _refused("records", f"metrics {sorted(beside)[:3]}", "the reply holds more than was agreed")
    if SUMS not in reply:
        return
    try:
        config = config_from_json(read_task(asked).config)
        sums = read_sums(reply, form(read_asked(asked, config), config, scored=REFERENCE in asked))
    except (FederationError, ConfigError) as error:
        raise _refused("records", str(error), "the sums are not of the form that was asked for") from error
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
    barred = [name for name in arrays if not _named(name, policy.arrays)]
    if barred:
        text = f"policy.arrays does not name {printable(barred[0], 80)!r} (and {len(barred) - 1} others)"
        raise _refused("arrays", text, "the update holds arrays that may not leave the site")


def secure_stage(asked: RecordDict) -> str | None:
    """The stage of a secure round that a request is for; None for a plain one."""
    record = asked.get(SECURE)
    if record is None:
        return None
    return printable(str(record.get("stage")), 20) if isinstance(record, ConfigRecord) else ""


def asked_arrays(asked: RecordDict) -> Arrays:
    """The arrays of a request.

    Raises:
        PolicyError: it has none, or others than float32.
    """
    try:
        return _read(asked.get(ARRAYS), "request")
    except FederationError as error:
        raise _refused("records", str(error), "the request's arrays cannot be read") from error


def require_norm(norm: float, policy: SitePolicy) -> None:
    """Refuse a change, all arrays together, beyond `policy.max_update_norm`.

    Raises:
        PolicyError: it is.
    """
    if policy.max_update_norm and not norm <= policy.max_update_norm:
        text = f"the update's norm is {norm:.4g}, policy.max_update_norm is {policy.max_update_norm:g}"
        raise _refused("max_update_norm", text, "the update is larger than may leave the site")


def keep_back(reply: RecordDict, policy: SitePolicy, *, cohort: int | None = None, epsilon: float | None = None) -> RecordDict:
    """The reply without the numbers and words that the policy keeps; arrays are as they were.

    Every field is written anew, of its own type: nothing else fits through. Counts are 1 where `share_counts` is off or the
    cohort is below `min_patients`, and the losses are then kept too.

    Args:
        reply: of the bundle.
        policy: `metrics`, `share_metrics`, `share_counts` and `min_patients` are read.
        cohort: how many patients the site has, as counted outside the bundle; None: only what the reply says is known.
        epsilon: of the run, as worked out outside the bundle; None: only what the reply says is known.
    """
    metrics, site = reply.metric_records.get(METRICS, MetricRecord()), reply.config_records.get(SITE, ConfigRecord())
    told = site.get(COUNTS_SHARED) is True
    patients = _whole(metrics.get(NUM_EXAMPLES))
    known = [*([patients] if told else []), *([cohort] if cohort is not None else [])]
    small = min(known, default=policy.min_patients) < policy.min_patients
    shared = policy.share_counts and told and not small
    kept: dict[str, Any] = {name: _whole(metrics.get(name)) if shared else 1 for name in COUNTS if name in metrics}
    kept |= {ROUND: _whole(metrics.get(ROUND))} if ROUND in metrics else {}
    if policy.share_metrics and not small:
        terms = {k: v for k, v in metrics.items() if k not in (*COUNTS, ROUND) and _named(k, policy.metrics)}
        kept |= {printable(k, 64): float(v) for k, v in terms.items() if isinstance(v, int | float)}
    said = site.get(EPSILON) if epsilon is None else epsilon
    fields: dict[str, Any] = {
        NAME: printable(str(site.get(NAME, "")), MAX_NAME),
        ERROR: printable(str(site.get(ERROR, "")), MAX_TEXT),
        COUNTS_SHARED: shared,
        EPSILON: said if isinstance(said, float) else -1.0,
    }
    fields |= {FOR_GOOD: True} if site.get(FOR_GOOD) is True else {}
    rest = {name: record for name, record in reply.items() if name not in (METRICS, SITE)}
    return RecordDict({**rest, METRICS: MetricRecord(kept), SITE: ConfigRecord(fields)})


def reply_bytes(content: RecordDict) -> int:
    """Bytes of all arrays and of all byte values: what a message carries beyond names and numbers."""
    arrays = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    values = [value for record in content.config_records.values() for value in record.values()]
    return arrays + sum(len(item) for value in values for item in _items(value) if isinstance(item, bytes | str))


def _items(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else (value,)


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 1


def _named(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _read(record: object, where: str) -> Arrays:
    """Arrays whose names are not known beforehand: float32, of the shapes in their own headers."""
    if not isinstance(record, ArrayRecord):
        raise _refused("records", f"the {where} has no arrays", "the reply holds more than was agreed")
    return {name: unpack_array(name, array, tuple(map(int, array.shape)), "<f4") for name, array in sorted(record.items())}


def _refused(rule: str, text: str, public: str) -> PolicyError:
    """By a key of `[policy]`, or by "records": what a reply may hold at all, which no hospital can change."""
    name = f"policy.{rule}" if rule in POLICY_KEYS else rule
    return PolicyError(f"Refused by {name}: {text.removesuffix('.')}. Nothing left the site.", public=public, rule=name)
