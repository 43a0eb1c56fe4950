"""What a reply may hold: the list in the code is the one in the documents, and no reply of any kind holds more."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.policy.keeping import keep_back
from common.config.site import SitePolicy
from common.data.survey import Answer
from common.messages.calibration import write_sums
from common.messages.leaving import LEAVES, unlisted, written
from common.messages.round import METRICS, SITE, SiteReply, write_reply, write_status
from common.messages.secure_aggregation import AdvertisedKeys, KeyShares, UnmaskShares, write_stage_reply
from common.messages.survey import write_answer
from common.messages.twins import Compared, Grouped, Offered, Sent, write_told
from common.messages.update import Update

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "privacy.md"
TOLD = SiteReply(
    "a",
    3,
    update=Update({"w": np.ones(3, np.float32)}),
    patients=40,
    labelled=30,
    counts_shared=True,
    epsilon=1.5,
    metrics={"loss": 0.5},
    data="ab" * 32,
)
STATUS = SiteReply("a", 3, epsilon=1.5)
KINDS: dict[str, Callable[[], RecordDict]] = {
    "plain": lambda: write_reply(TOLD),
    "refused": lambda: write_status(SiteReply("a", 3, error="no", for_good=True)),
    "keys": lambda: write_stage_reply(STATUS, AdvertisedKeys(b"k", b"l")),
    "shares": lambda: write_stage_reply(STATUS, KeyShares((2,), (b"c",), bytes(32))),
    "masked": lambda: write_stage_reply(STATUS, np.zeros(4, np.uint32)),
    "unmask": lambda: write_stage_reply(STATUS, UnmaskShares((b"s",), ())),
    "twins, offer": lambda: write_told(STATUS, Offered(b"k")),
    "twins, group": lambda: write_told(STATUS, Grouped((b"c",))),
    "twins, send": lambda: write_told(STATUS, Sent(), b"sealed"),
    "twins, compare": lambda: write_told(STATUS, Compared(1, 2)),
    "survey": lambda: write_answer(STATUS, Answer(10, 40, {}, {})),
    "sums": lambda: write_sums(TOLD, {"calibration.nll": np.ones(3, np.float32)}),
}


def test_the_document_shows_the_list_of_the_code() -> None:
    """Where this fails: python -m common.messages.leaving"""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert written(text) == text
    assert all(f"| `{row.record}` | `{row.field}` |" in text for row in LEAVES)


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_reply_holds_more(kind: str) -> None:
    content = KINDS[kind]()
    assert list(unlisted(content)) == []
    assert list(unlisted(keep_back(content, SitePolicy.simulation()))) == []


def test_every_row_is_of_some_reply() -> None:
    """A row that nothing needs would let something out."""
    held = {(name, key) for make in KINDS.values() for name, record in make().items() for key in record}
    for row in LEAVES:
        found = {key for name, key in held if name == row.record}
        if "*" not in row.field:
            assert row.field in found, row
        else:
            assert any(key.endswith(row.field.strip("*")) for key in found), row


@pytest.mark.parametrize(
    ("name", "record", "found"),
    [
        ("site", ConfigRecord({"name": "a", "patients": 40}), "site.patients"),
        ("secure", ConfigRecord({"stage": "keys", "mask_key": b"k", "note": "Smith"}), "secure.note"),
        ("masked", ArrayRecord([np.zeros(3)]), "masked.0"),
        ("change", MetricRecord({"x": 1.0}), "change"),
        ("images", ArrayRecord([np.zeros(3)]), "images"),
    ],
)
def test_what_has_no_row_is_named(name: str, record: ArrayRecord | ConfigRecord | MetricRecord, found: str) -> None:
    assert list(unlisted(RecordDict({name: record}))) == [found]


def test_a_private_reply_under_the_strict_policy_tells_the_runs_epsilon_and_no_patient() -> None:
    kept = keep_back(write_reply(TOLD), SitePolicy(), epsilon=0.7)
    assert dict(kept[METRICS]) == {"num-examples": 1, "labelled": 1, "round": 3}
    assert dict(kept[SITE]) == {"name": "a", "error": "", "counts-shared": False, "epsilon": 0.7}
