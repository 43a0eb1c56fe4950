"""What may leave: each rule alone, against a reply that is fine in all else."""

from datetime import datetime
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.policy.asking import require_hours
from client.policy.keeping import keep_back
from client.policy.leaving import reply_bytes, require_leaving
from common.config.site import SiteConfig, SitePolicy, read_site_config
from common.errors import ConfigError, PolicyError
from common.messages.round import SiteReply, Task, pack_arrays, read_status, write_reply, write_task
from common.messages.update import Update

BEFORE = {"head.weight": np.zeros((3, 4), np.float32), "vit.lora_a": np.ones(5, np.float32)}
ASKED = write_task(Task(1, "{}", "c", "b"), pack_arrays(BEFORE))
OPEN = SitePolicy(share_counts=True, share_metrics=True)


def reply(arrays=None, **changes) -> RecordDict:
    change = Update(arrays if arrays is not None else {name: np.full_like(value, 0.1) for name, value in BEFORE.items()})
    fields: dict[str, Any] = {"patients": 40, "labelled": 30, "counts_shared": True, "epsilon": 1.5}
    fields |= {"metrics": {"loss": 0.5, "dino": 0.2}}
    return write_reply(SiteReply("a", 1, update=change, **fields | changes))


def test_what_is_fine_leaves_as_it_is() -> None:
    require_leaving(reply(), ASKED, OPEN)
    kept = keep_back(reply(), OPEN)
    assert read_status(kept) == read_status(reply())
    assert kept["change"] == reply()["change"]


@pytest.mark.parametrize(
    ("policy", "content", "says"),
    [
        (SitePolicy(arrays=("vit.*",)), reply(), "arrays that may not leave"),
        (SitePolicy(max_megabytes=0.001), reply({n: np.zeros((99, 99), np.float32) for n in BEFORE}), "more bytes"),
        (SitePolicy(max_update_norm=0.01), reply(), "larger than may leave"),
        (SitePolicy(secure_only=True), reply(), "secure aggregation only"),
        (OPEN, reply({"head.weight": BEFORE["head.weight"]}), "not of the form"),
        (OPEN, reply(BEFORE | {"vit.images": np.zeros(9, np.float32)}), "not of the form"),
        (OPEN, reply(BEFORE | {"vit.lora_a": np.zeros(6, np.float32)}), "not of the form"),
        (OPEN, reply(BEFORE | {"vit.lora_a": np.full(5, np.nan, np.float32)}), "not of the form"),
        (OPEN, RecordDict({**reply(), "images": ArrayRecord([np.zeros(3)])}), "more than was agreed"),
        (OPEN, RecordDict({**reply(), "secure": MetricRecord({"x": 1.0})}), "more than was agreed"),
    ],
)
def test_each_rule_refuses_by_itself(policy, content, says) -> None:
    with pytest.raises(PolicyError) as refused:
        require_leaving(content, ASKED, policy)
    assert says in refused.value.public
    assert refused.value.rule == "records" or refused.value.rule.startswith("policy.")
    assert str(refused.value).startswith(f"Refused by {refused.value.rule}: ")
    assert ".." not in str(refused.value)


@pytest.mark.parametrize("name", ["secure", "calibration", "survey"])
def test_a_request_for_two_things_is_answered_with_neither(name) -> None:
    """The rules of the one are not those of the other: a record of the second would leave by the rules of the first."""
    asked = RecordDict({**ASKED, "twins": ConfigRecord({"stage": "send"}), name: ConfigRecord({"stage": "fit"})})
    with pytest.raises(PolicyError) as refused:
        require_leaving(RecordDict({"twins": ConfigRecord({"stage": "send", "patients": ["sub-1"]})}), asked, OPEN)
    assert "several things" in refused.value.public


@pytest.mark.parametrize(
    ("stage", "message"),
    [("offer", {"public": b"k", "patient": "sub-1"}), ("compare", {"shared": 1, "left_out": 3}), ("elsewhere", {}), ("send", {})],
)
def test_of_the_comparison_of_patients_only_its_own_messages_leave(stage, message) -> None:
    """In turn: a field too many, a number that the policy keeps, a stage that there is none, fingerprints that are not there."""
    asked = RecordDict({**write_task(Task(1, "{}", "c", "b"), None), "twins": ConfigRecord({"stage": stage})})
    with pytest.raises(PolicyError) as refused:
        require_leaving(RecordDict({"twins": ConfigRecord({"stage": stage, **message})}), asked, SitePolicy(twins="drop"))
    assert "more than was agreed" in refused.value.public


def test_residuals_that_a_site_was_sent_do_not_come_back() -> None:
    """`federation.low_rank = "residual"`: they are the server's to write, and a reply that holds one is refused."""
    more = BEFORE | {"vit.residual_b": np.zeros((4, 2), np.float32), "vit.residual_a": np.zeros((2, 4), np.float32)}
    asked = write_task(Task(1, "{}", "c", "b"), pack_arrays(more))
    require_leaving(reply(), asked, OPEN)
    with pytest.raises(PolicyError) as refused:
        require_leaving(reply(more), asked, OPEN)
    assert "not of the form" in refused.value.public
    trained = {name: value + 1 for name, value in more.items()}
    assert Update.between(trained, more).change.keys() == BEFORE.keys()


def test_what_sites_keep_to_themselves_does_not_leave() -> None:
    """In a head round the head still does; from the next on a reply with it is refused, and one without is what was agreed."""
    config = '{"personal": {"keep": ["head"]}, "training": {"head_rounds": 1}}'
    without = {name: array for name, array in BEFORE.items() if not name.startswith("head.")}
    for number, allowed, barred in ((1, BEFORE, without), (2, without, BEFORE)):
        asked = write_task(Task(number, config, "c", "b"), pack_arrays(BEFORE))
        require_leaving(reply(allowed), asked, OPEN)
        with pytest.raises(PolicyError) as refused:
            require_leaving(reply(barred), asked, OPEN)
        assert "not of the form" in refused.value.public
    require_leaving(reply(without), asked, SitePolicy(arrays=("vit.*",)))  # nor need a hospital agree that it may


def test_the_norm_is_that_of_all_arrays_together() -> None:
    norm = float(np.sqrt(17 * 0.01))
    require_leaving(reply(), ASKED, SitePolicy(max_update_norm=norm * 1.001))
    with pytest.raises(PolicyError):
        require_leaving(reply(), ASKED, SitePolicy(max_update_norm=norm * 0.999))


def test_an_update_that_its_maker_hands_over_is_held_against_the_same_rules() -> None:
    for change, policy, says in [
        ({n: np.full_like(v, 0.1) for n, v in BEFORE.items()}, SitePolicy(max_update_norm=0.01), "larger"),
        ({n: np.full_like(v, np.nan) for n, v in BEFORE.items()}, OPEN, "not of the form"),
        ({"head.weight": BEFORE["head.weight"]}, OPEN, "not of the form"),
        ({n: np.zeros_like(v) for n, v in BEFORE.items()}, SitePolicy(arrays=("vit.*",)), "may not leave"),
    ]:
        with pytest.raises(PolicyError) as refused:
            require_leaving(reply(change), ASKED, policy, Update(change))
        assert says in refused.value.public


def test_whole_arrays_as_an_earlier_version_sent_them_do_not_leave() -> None:
    content = RecordDict({k: v for k, v in reply().items() if k != "change"})
    content["arrays"] = pack_arrays(BEFORE)
    with pytest.raises(PolicyError, match="holds a record 'arrays'"):
        require_leaving(content, ASKED, OPEN)


def test_arrays_that_nobody_asked_for_do_not_leave() -> None:
    with pytest.raises(PolicyError):
        require_leaving(reply(), write_task(Task(1, "{}", "c", "b"), None), OPEN)


def test_counts_and_losses_are_kept_where_the_policy_says_so() -> None:
    strict = keep_back(reply(), SitePolicy())
    assert dict(strict["metrics"]) == {"num-examples": 1, "labelled": 1, "round": 1}
    assert strict["site"]["counts-shared"] is False
    counts = keep_back(reply(), SitePolicy(share_counts=True))
    assert dict(counts["metrics"]) == {"num-examples": 40, "labelled": 30, "round": 1}
    losses = keep_back(reply(), SitePolicy(share_metrics=True, metrics=("lo*",)))
    assert dict(losses["metrics"]) == {"num-examples": 1, "labelled": 1, "round": 1, "loss": 0.5}


def test_a_small_cohort_tells_nothing_of_itself() -> None:
    kept = keep_back(reply(patients=9, labelled=2), OPEN)
    assert dict(kept["metrics"]) == {"num-examples": 1, "labelled": 1, "round": 1}
    assert kept["site"]["counts-shared"] is False
    assert keep_back(reply(patients=10, labelled=2), OPEN)["metrics"]["num-examples"] == 10


def test_fields_that_were_not_agreed_are_left_out() -> None:
    content = reply()
    content["site"] = ConfigRecord({**content.config_records["site"], "patient": "Smith", "error": "line\n" * 500})
    kept = keep_back(content, OPEN)
    assert set(kept["site"]) == {"name", "error", "counts-shared", "epsilon"}
    assert len(str(kept["site"]["error"])) <= 300
    assert "\n" not in str(kept["site"]["error"])


@pytest.mark.parametrize(
    ("hours", "at", "inside"),
    [
        ("19:00-06:30", (19, 0), True),
        ("19:00-06:30", (6, 29), True),
        ("19:00-06:30", (6, 30), False),
        ("19:00-06:30", (12, 0), False),
        ("08:00-17:00", (8, 0), True),
        ("08:00-17:00", (17, 0), False),
        ("08:00-17:00", (7, 59), False),
        ("", (3, 0), True),
    ],
)
def test_the_hospitals_hours(hours, at, inside) -> None:
    now = datetime(2026, 11, 22, *at).astimezone()
    if inside:
        require_hours(SitePolicy(hours=hours), now)
    else:
        with pytest.raises(PolicyError) as refused:
            require_hours(SitePolicy(hours=hours), now)
        assert refused.value.public == "the site does not train at this time of day"


@pytest.mark.parametrize("hours", ["24:00-06:00", "9-17", "08:00-08:00", "08:00", "08:00-17:60", "8:00-17:00"])
def test_hours_that_are_no_span_are_refused(hours) -> None:
    with pytest.raises(ConfigError, match=r"policy\.hours"):
        SitePolicy(hours=hours)


def test_site_toml_holds_the_policy_and_the_connection(tmp_path) -> None:
    (tmp_path / "site.toml").write_text(
        '[policy]\nhours = "20:00-06:00"\nmin_patients = 20\narrays = ["head.*"]\n[connection]\nserver = "fed.example.org:8443"\n'
    )
    site = read_site_config(tmp_path)
    assert (site.policy.hours, site.policy.min_patients, site.policy.arrays) == ("20:00-06:00", 20, ("head.*",))
    assert site.connection.server == "fed.example.org:8443"
    for wrong in ("https://fed.example.org", "fed.example.org", "fed:99999", "a b:1"):
        with pytest.raises(ConfigError, match=r"connection\.server"):
            SiteConfig(connection=type(site.connection)(server=wrong))


def test_bytes_are_counted_over_arrays_and_byte_values() -> None:
    assert reply_bytes(RecordDict({"secure": ConfigRecord({"k": b"12345", "l": [b"1", b"22"], "n": 7})})) == 8
    assert reply_bytes(reply()) >= 17 * 4


LONG = [0.5] * 10_000


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [("metrics", "round", LONG), ("metrics", "loss", LONG), ("site", "epsilon", LONG), ("site", "name", "/data/Smith" * 1000)],
)
def test_no_field_is_a_way_out_for_other_data(record, field, value) -> None:
    content = reply()
    fields = {**content[record], field: value}
    content[record] = MetricRecord(fields) if record == "metrics" else ConfigRecord(fields)
    kept = keep_back(content, OPEN)
    assert all(not isinstance(v, list) for r in (kept["metrics"], kept["site"]) for v in r.values())
    assert len(str(kept["site"]["name"])) <= 120


def secure(stage: str, **more) -> RecordDict:
    content = RecordDict(dict(ASKED.items()))
    content["secure"] = ConfigRecord({"stage": stage, "session": "s", **more})
    return content


def masked(length: int = 18, dtype=np.uint32, name: str = "masked") -> RecordDict:
    """17 values and the weight."""
    content = {k: v for k, v in reply().items() if k != "change"}
    return RecordDict({**content, "masked": ArrayRecord({name: Array(np.zeros(length, dtype))})})


def test_a_masked_update_leaves_a_secure_round_and_nothing_else_does() -> None:
    strict = SitePolicy(secure_only=True)
    require_leaving(masked(), secure("masked"), strict)
    told = RecordDict({k: v for k, v in reply().items() if k != "change"})
    told["secure"] = ConfigRecord({"stage": "keys", "mask_key": b"k", "letter_key": b"l"})
    require_leaving(told, secure("keys"), strict)
    for content, asked in [
        (masked(), ASKED),  # in answer to a plain request
        (masked(), secure("keys")),
        (masked(17), secure("masked")),
        (masked(dtype=np.float32), secure("masked")),
        (masked(name="vit.lora_a"), secure("masked")),
        (reply(), secure("masked")),
        (told, secure("unmask")),
        (told, ASKED),
    ]:
        with pytest.raises(PolicyError):
            require_leaving(content, asked, SitePolicy())
    with pytest.raises(PolicyError):
        require_leaving(masked(), secure("masked"), SitePolicy(arrays=("vit.*",)))
