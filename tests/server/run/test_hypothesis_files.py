"""A run folder's files, damaged in every way: read, or refused with a sentence, and never anything else."""

import json
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from common.errors import FedMRIError
from common.privacy.audit import CHECKS
from server.events.kinds import Aggregated, Asked, Began, Kept, Opened, Refused
from server.events.log import as_text, read_events
from server.report.privacy_audit import add_audit, audit_entry, read_audit
from server.report.publish import render_html
from server.report.report import read_report
from server.run.checkpoint import Checkpoint, latest_round, load_round, save_checkpoint
from server.run.resume import read_open
from server.run.round_lines import read_lines, read_rounds
from server.strategy.progress import Progress
from tests.damage import MANY, damaged_json, made, mutated, nothing_unpickled

pytestmark = pytest.mark.slow

LINE = {
    "round": 1,
    "attempts": 1,
    "seconds": 2.0,
    "sites": ["a"],
    "failures": [{"site": "b", "reason": "gone"}],
    "trained": {"a": 1},
    "paused": ["c"],
    "redone": 1,
}
EVENTS = [
    as_text(event)
    for event in (Began(2), Opened(1), Asked(1, 1, "a", "train", 9), Aggregated(1, 2.0, ("a",), {"loss": 1.0}), Kept(1))
]
REPORT: dict[str, Any] = {
    "external": {
        "mcc": {"value": 0.5, "low": 0.1, "high": 0.9},
        "n": 3,
        "support": {"x": 2, "y": 1},
        "confusion": [[2, 0], [0, 1]],
    },
    "patients": [{"id": "p", "label": "x", "probabilities": [0.5, 0.5], "modalities": ["t1"]}],
    "baselines": {"local": {"a": None}},
    "modality_subsets": {},
    "rounds": [LINE],
    "calibration": None,
    "privacy": {"a": {"epsilon": 1.0}},
    "provenance": {"config": {}},
}


@pytest.fixture(autouse=True)
def guarded():
    with nothing_unpickled():
        yield


def lines(random: Random) -> bytes:
    """Some lines of rounds.jsonl, most of them whole."""
    whole = [json.dumps(LINE | {"round": number}).encode() for number in range(1, random.randint(1, 4))]
    return b"\n".join(line if random.random() < 0.6 else damaged_json(random, LINE) for line in whole) + random.choice(
        (b"", b"\n")
    )


@MANY
@given(content=made(lines))
def test_rounds(content, tmp_path):
    (tmp_path / "rounds.jsonl").write_bytes(content)
    read_rounds(tmp_path)
    with suppress(FedMRIError):
        for number, line in enumerate(read_lines(tmp_path), start=1):
            assert line["round"] == number
            assert all(isinstance(site, str) for site in line["sites"])


@MANY
@given(content=made(lambda random: damaged_json(random, {"round": 1, "file": "round-0001.safetensors"})))
def test_the_pointer_to_the_latest_checkpoint(content, tmp_path):
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    (tmp_path / "checkpoints" / "latest.json").write_bytes(content)
    assert latest_round(tmp_path) is None or type(latest_round(tmp_path)) is int


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    save_checkpoint(folder, Checkpoint(1, {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"config": "{}"}))
    return (folder / "checkpoints" / "round-0001.safetensors").read_bytes()


@MANY
@given(seed=made(lambda random: random))
def test_a_checkpoint(seed, checkpoint, tmp_path):
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    (tmp_path / "checkpoints" / "round-0001.safetensors").write_bytes(mutated(seed, checkpoint))
    with suppress(FedMRIError):
        load_round(tmp_path, 1)


@MANY
@given(content=made(lambda random: damaged_json(random, {"round": 2, "trained": {"a": 1}, "redone": 0})))
def test_the_open_round(content, tmp_path):
    (tmp_path / "open-round.json").write_bytes(content)
    with suppress(FedMRIError):
        number, trained, redone = read_open(tmp_path)
        assert number >= 0 <= redone
        assert all(times >= 0 for times in trained.values())


@MANY
@given(
    content=made(
        lambda random: b"\n".join(
            damaged_json(random, json.loads(line)) if random.random() < 0.3 else line.encode() for line in EVENTS
        )
    )
)
def test_the_events(content, tmp_path):
    (tmp_path / "events.jsonl").write_bytes(content)
    with suppress(FedMRIError):
        progress = Progress(tmp_path, 1, resumed=True)
        for name in [*progress.sites, "a"]:
            progress.asked(name, 1)
            progress.failed(name, "gone")
        progress.close()
        last = read_events(tmp_path).entries[-1].event
        assert isinstance(last, Refused)
        assert (last.site, last.reason) == ("a", "gone")


@MANY
@given(content=made(lambda random: damaged_json(random, REPORT)))
def test_a_report(content, tmp_path):
    (tmp_path / "report.json").write_bytes(content)
    with suppress(FedMRIError):
        read_report(tmp_path)


AUDIT: dict[str, Any] = {
    "mechanism": {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "sample_rate": 0.1},
    "checks": [{"name": name, "passed": True, "detail": "y"} for name in CHECKS],
    "canary": {"claimed": 1.0, "audited": 0.5, "delta": 0.1, "guesses": 3, "right": 1},
    "membership_auc": None,
    "passed": True,
}


@MANY
@given(content=made(lambda random: damaged_json(random, AUDIT)))
def test_an_audit(content, tmp_path):
    (tmp_path / "audit.json").write_bytes(content)
    with suppress(FedMRIError):
        audit_entry(read_audit(tmp_path / "audit.json"), AUDIT["mechanism"])


def test_what_the_damage_is_done_to_is_whole(tmp_path):
    assert audit_entry(AUDIT, AUDIT["mechanism"])["passed"]
    assert "<html" in render_html({**REPORT, "aggregation": {}})
    (tmp_path / "rounds.jsonl").write_text(json.dumps(LINE) + "\n")
    assert read_lines(tmp_path) == [LINE]


CLAIMED = {**REPORT, "privacy": {"a": {"epsilon": 1.0, **AUDIT["mechanism"]}}}


@MANY
@given(content=made(lambda random: damaged_json(random, CLAIMED)))
def test_a_report_that_an_audit_goes_into(content, tmp_path):
    (tmp_path / "report.json").write_bytes(content)
    (tmp_path / "audit.json").write_text(json.dumps(AUDIT))
    with suppress(FedMRIError):
        assert add_audit(tmp_path, "a", tmp_path / "audit.json", force=True)["passed"]
        assert read_report(tmp_path)["privacy"]["a"]["audit"]["passed"]
