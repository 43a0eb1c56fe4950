"""What the hospital lets run and leave: plain rules over a request and the reply to it.

The same rules are held twice: by the bundle's own code (`client.answer`), and outside it by the gate (`client.gate`), which is
the hospital's installed code and trusts nothing that a bundle made.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from common.data.site import SitePolicy, read_hours
from common.errors import FederationError, PolicyError
from common.models.arrays import Arrays, update_norm
from common.protocol import (
    ARRAYS,
    COUNTS_SHARED,
    EPSILON,
    ERROR,
    LABELLED,
    MAX_TEXT,
    METRICS,
    NAME,
    NUM_EXAMPLES,
    ROUND,
    SITE,
    printable,
    unpack_array,
    unpack_arrays,
)
from common.secure.messages import MASKED, SECURE

KINDS: Mapping[str, type] = {
    ARRAYS: ArrayRecord,
    METRICS: MetricRecord,
    SITE: ConfigRecord,
    SECURE: ConfigRecord,
    MASKED: ArrayRecord,
}
COUNTS = (NUM_EXAMPLES, LABELLED)
SITE_FIELDS = (NAME, ERROR, COUNTS_SHARED, EPSILON)


def require_hours(policy: SitePolicy, now: datetime) -> None:
    """Refuse work outside the hospital's hours.

    Args:
        now: local time.

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
        )


def require_leaving(reply: RecordDict, asked: RecordDict, policy: SitePolicy) -> None:
    """Refuse a reply whose arrays may not leave.

    Args:
        reply: its `arrays` are absent after a failure, and in a secure round, where `masked` is what leaves.
        asked: the request that it answers: what it may hold at most.

    Raises:
        PolicyError: another record than agreed, an array that was not asked for or that `policy.arrays` does not name, values
            that are not finite, more bytes than `policy.max_megabytes`, a change beyond `policy.max_update_norm`, or an update
            in the clear under `policy.secure_only`.
    """
    for name, record in reply.items():
        if name not in KINDS or not isinstance(record, KINDS[name]):
            raise _refused("records", f"the reply holds a record {printable(name, 60)!r}", "the reply holds more than was agreed")
    size = reply_bytes(reply)
    if size > policy.max_megabytes * 1e6:
        text = f"the reply has {size / 1e6:.3f} MB, policy.max_megabytes is {policy.max_megabytes:g}"
        raise _refused("max_megabytes", text, "the update has more bytes than may leave the site")
    if ARRAYS not in reply:
        return
    if policy.secure_only:
        raise _refused("secure_only", "an update in the clear", "the site takes part in secure aggregation only")
    before = _read(asked.get(ARRAYS), "request")
    try:
        after = unpack_arrays(reply.array_records[ARRAYS], before)
    except FederationError as error:
        raise _refused("records", str(error), "the update is not of the form that was asked for") from error
    barred = [name for name in after if not _named(name, policy.arrays)]
    if barred:
        text = f"policy.arrays does not name {barred[0]!r} (and {len(barred) - 1} others)"
        raise _refused("arrays", text, "the update holds arrays that may not leave the site")
    require_norm(update_norm(after, before), policy)


def require_norm(norm: float, policy: SitePolicy) -> None:
    """Refuse a change, all arrays together, beyond `policy.max_update_norm`.

    Raises:
        PolicyError: it is.
    """
    if policy.max_update_norm and not norm <= policy.max_update_norm:
        text = f"the update's norm is {norm:.4g}, policy.max_update_norm is {policy.max_update_norm:g}"
        raise _refused("max_update_norm", text, "the update is larger than may leave the site")


def keep_back(reply: RecordDict, policy: SitePolicy) -> RecordDict:
    """The reply without the numbers and words that the policy keeps; arrays are as they were.

    Counts are 1 where `share_counts` is off or the cohort is below `min_patients`, and the losses are then kept too.
    """
    metrics, site = reply.metric_records.get(METRICS, MetricRecord()), reply.config_records.get(SITE, ConfigRecord())
    patients = metrics.get(NUM_EXAMPLES)
    told = site.get(COUNTS_SHARED) is True and isinstance(patients, int)
    small = told and isinstance(patients, int) and patients < policy.min_patients
    shared = policy.share_counts and told and not small
    kept: dict[str, Any] = {name: metrics[name] for name in (*COUNTS, ROUND) if name in metrics}
    if not shared:
        kept |= {name: 1 for name in COUNTS if name in kept}
    if policy.share_metrics and not small:
        kept |= {k: v for k, v in metrics.items() if k not in kept and _named(k, policy.metrics)}
    fields: dict[str, Any] = {name: site[name] for name in SITE_FIELDS if name in site} | {COUNTS_SHARED: shared}
    fields[ERROR] = printable(str(fields.get(ERROR, "")), MAX_TEXT)
    rest = {name: record for name, record in reply.items() if name not in (METRICS, SITE)}
    return RecordDict({**rest, METRICS: MetricRecord(kept), SITE: ConfigRecord(fields)})


def reply_bytes(content: RecordDict) -> int:
    """Bytes of all arrays and of all byte values: what a message carries beyond names and numbers."""
    arrays = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    values = [value for record in content.config_records.values() for value in record.values()]
    return arrays + sum(len(item) for value in values for item in _items(value) if isinstance(item, bytes | str))


def _items(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else (value,)


def _named(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _read(record: object, where: str) -> Arrays:
    """Arrays whose names are not known beforehand: float32 of the shapes that their own headers say."""
    if not isinstance(record, ArrayRecord):
        raise _refused("records", f"the {where} has no arrays", "the reply holds more than was agreed")
    return {name: unpack_array(name, array, tuple(map(int, array.shape)), "<f4") for name, array in sorted(record.items())}


def _refused(rule: str, text: str, public: str) -> PolicyError:
    return PolicyError(f"Refused by policy.{rule}: {text}. Nothing left the site.", public=public)
