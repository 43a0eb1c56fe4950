"""What the hospital keeps of a reply that may leave: numbers and words."""

from typing import Any

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from client.policy.rule import named_by
from common.config.site import SitePolicy
from common.messages.round import (
    COUNTS_SHARED,
    DATA,
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
    data_hash,
)
from common.text import printable

COUNTS = (NUM_EXAMPLES, LABELLED)


def keep_back(reply: RecordDict, policy: SitePolicy, *, cohort: int | None = None, epsilon: float | None = None) -> RecordDict:
    """The reply without the numbers and words that the policy keeps; arrays are as they were.

    Every field is written anew, of its own type: nothing else fits through. Counts are 1 where `share_counts` is off or the
    cohort is below `min_patients`, and the losses are then kept too.

    Args:
        reply: of the bundle.
        policy: `metrics`, `share_metrics`, `share_counts`, `share_data_hash` and `min_patients` are read.
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
        terms = {k: v for k, v in metrics.items() if k not in (*COUNTS, ROUND) and named_by(k, policy.metrics)}
        kept |= {printable(k, 64): float(v) for k, v in terms.items() if isinstance(v, int | float)}
    said = site.get(EPSILON) if epsilon is None else epsilon
    fields: dict[str, Any] = {
        NAME: printable(str(site.get(NAME, "")), MAX_NAME),
        ERROR: printable(str(site.get(ERROR, "")), MAX_TEXT),
        COUNTS_SHARED: shared,
        EPSILON: said if isinstance(said, float) else -1.0,
    }
    private = isinstance(said, float) and said >= 0  # whether two rounds' data are the same has no noise
    fields |= {DATA: data_hash(site)} if policy.share_data_hash and not private and data_hash(site) else {}
    fields |= {FOR_GOOD: True} if site.get(FOR_GOOD) is True else {}
    rest = {name: record for name, record in reply.items() if name not in (METRICS, SITE)}
    return RecordDict({**rest, METRICS: MetricRecord(kept), SITE: ConfigRecord(fields)})


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 1
