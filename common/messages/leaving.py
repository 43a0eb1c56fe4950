"""All that a site's reply may hold, one row a field. What has no row does not leave (`client.policy`); see docs/privacy.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from common.messages.calibration import SUMS
from common.messages.round import (
    CHANGE,
    COUNTS_SHARED,
    DATA,
    EPSILON,
    ERROR,
    FOR_GOOD,
    LABELLED,
    METRICS,
    NAME,
    NUM_EXAMPLES,
    ROUND,
    SITE,
)
from common.messages.secure_aggregation import MASKED, SECURE
from common.messages.survey import ANSWER, SURVEY
from common.messages.twins import SEALED, TWINS

BEGIN, END = "<!-- leaving -->", "<!-- /leaving -->"  # around the table
ALWAYS = "always"
SUMMED = "`secure.enabled`, and `policy.min_summed` or more are summed"
COMPARED = '`policy.twins` other than "off"'
COUNTED = "`policy.share_counts`, from `policy.min_patients` on; else 1"


@dataclass(frozen=True)
class Leaving:
    """One field of a reply.

    Attributes:
        record, kind: the record that holds it.
        field: its name, or a glob of several.
        what: it says.
        when: it leaves.
    """

    record: str
    kind: type
    field: str
    what: str
    when: str


LEAVES = (
    Leaving(SITE, ConfigRecord, NAME, "the site's name", ALWAYS),
    Leaving(
        SITE, ConfigRecord, ERROR, "one of our sentences on why a request failed; never a patient, a path or a count", ALWAYS
    ),
    Leaving(SITE, ConfigRecord, FOR_GOOD, "whether that refusal stands for the whole run, by a rule of the policy", ALWAYS),
    Leaving(SITE, ConfigRecord, COUNTS_SHARED, "whether the counts are true", ALWAYS),
    Leaving(
        SITE,
        ConfigRecord,
        EPSILON,
        "what this run has charged here, at the run's delta: it follows from how often the site was asked; -1 without privacy",
        ALWAYS,
    ),
    Leaving(
        SITE,
        ConfigRecord,
        DATA,
        "a hash over the data that the round trained on, by a key of the site's own: the same where nothing changed",
        "`policy.share_data_hash`, not in a private run",
    ),
    Leaving(METRICS, MetricRecord, ROUND, "the number of the round, as asked", ALWAYS),
    Leaving(METRICS, MetricRecord, NUM_EXAMPLES, "patients that train", COUNTED),
    Leaving(METRICS, MetricRecord, LABELLED, "how many of them have a label", COUNTED),
    Leaving(
        METRICS,
        MetricRecord,
        "*",
        "mean losses (none in a private run), and the seconds that the round took",
        "`policy.share_metrics`, those of `policy.metrics`, from `policy.min_patients` on",
    ),
    Leaving(
        CHANGE,
        ArrayRecord,
        "*",
        "the change of each trained array but those that the run's sites keep; clipped and noised by patient in a private run",
        "those of `policy.arrays`, not under `policy.secure_only`",
    ),
    Leaving(MASKED, ArrayRecord, MASKED, "the weighted change and the weight, under masks that cancel in the sum", SUMMED),
    Leaving(SECURE, ConfigRecord, "stage", "the stage of the secure round that is answered", SUMMED),
    Leaving(SECURE, ConfigRecord, "*_key", "public keys of this round alone", SUMMED),
    Leaving(SECURE, ConfigRecord, "seats", "whom encrypted shares are for", SUMMED),
    Leaving(SECURE, ConfigRecord, "letters", "shares of the mask's secrets, encrypted for each other site", SUMMED),
    Leaving(SECURE, ConfigRecord, "seed_sha256", "hash of the own mask's seed", SUMMED),
    Leaving(SECURE, ConfigRecord, "*_shares", "of each site a share of its mask's seed or of its key, never both", SUMMED),
    Leaving(
        SUMS,
        ArrayRecord,
        "*",
        "after the last round: sums over held-back patients, and moments of the features of all",
        "`policy.share_calibration`, of `policy.min_patients` or more, without `policy.secure_only`, budget and private run",
    ),
    Leaving(TWINS, ConfigRecord, "stage", "the stage of the comparison that is answered", COMPARED),
    Leaving(TWINS, ConfigRecord, "public", "a public key of this comparison alone", COMPARED),
    Leaving(TWINS, ConfigRecord, "letters", "the group's key, encrypted for each other site", COMPARED),
    Leaving(TWINS, ConfigRecord, "shared", "whether the next number is true", COMPARED),
    Leaving(TWINS, ConfigRecord, "left_out", "patients whom the site leaves out as another's", "`policy.share_twins`; else 0"),
    Leaving(SEALED, ArrayRecord, SEALED, "keyed fingerprints of the patients, encrypted for the other sites", COMPARED),
    Leaving(
        SURVEY,
        ConfigRecord,
        ANSWER,
        "counts in steps of `policy.min_patients`, and intensity landmarks",
        "topics of `policy.survey`, from `policy.min_patients` on, without a budget",
    ),
)
KINDS: dict[str, type] = {row.record: row.kind for row in LEAVES}


def unlisted(reply: RecordDict) -> Iterator[str]:
    """Records and fields of a reply that have no row, as `record` or `record.field`."""
    for name, record in reply.items():
        if not isinstance(record, KINDS.get(name, type(None))):
            yield name
            continue
        fields = [row.field for row in LEAVES if row.record == name]
        yield from (f"{name}.{key}" for key in record if not any(fnmatchcase(str(key), field) for field in fields))


def leaving_table() -> str:
    """The rows in Markdown, for docs/privacy.md."""
    rows = [f"| `{row.record}` | `{row.field}` | {row.what} | {row.when} |" for row in LEAVES]
    return "\n".join(["| Record | Field | What it says | When it leaves |", "|---|---|---|---|", *rows])


def written(text: str) -> str:
    """A document with the table of today between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{leaving_table()}\n{END}{after}"


def main() -> None:
    """Write the table into docs/privacy.md."""
    file = Path(__file__).resolve().parents[2] / "docs" / "privacy.md"
    file.write_text(written(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
