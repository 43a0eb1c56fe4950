"""What events.jsonl and status.json say while a run goes on."""

import json

import pytest

from common.errors import FederationError
from server.events.kinds import GONE, MALFORMED
from server.strategy import progress as module
from server.strategy.progress import Progress


def read(run):
    return json.loads((run / "status.json").read_text())


def test_every_event_of_a_site_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    progress = Progress(tmp_path, 20)
    progress.set_state("training", 3)
    progress.asked("a", 100)
    progress.tick()
    told = read(tmp_path)
    assert (told["state"], told["round"], told["rounds"]) == ("training", 3, 20)
    assert told["sites"]["a"] == {
        "state": "asked",
        "last_seen": None,
        "seconds": None,
        "bytes_up": 0,
        "bytes_down": 100,
        "failures": 0,
        "reason": "",
        "rule": "",
    }
    progress.answered("a", 2.5, 40)
    progress.failed("a", "not finite", MALFORMED)
    progress.tick()
    assert [read(tmp_path)["sites"]["a"][key] for key in ("state", "reason", "rule")] == ["failed", "not finite", "malformed"]
    progress.asked("a", 100)
    progress.answered("a", 1.5, 40)
    progress.paused("b", "paused after 3 failures in a row")
    progress.ended("finished")
    told = read(tmp_path)
    site = told["sites"]["a"]
    assert (site["state"], site["seconds"], site["bytes_up"], site["bytes_down"], site["failures"]) == (
        "answered",
        1.5,
        80,
        200,
        1,
    )
    assert site["last_seen"] is not None
    assert told["sites"]["b"]["state"] == "paused"
    assert (told["state"], told["round"]) == ("finished", 3)


def test_events_within_a_second_are_written_together(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 1e9)
    progress = Progress(tmp_path, 20)
    progress.set_state("training", 1)
    progress.asked("a", 1)
    progress.tick()
    assert read(tmp_path)["sites"] == {}
    progress.set_state("evaluating")
    assert "a" in read(tmp_path)["sites"]


def test_a_status_that_cannot_be_written_ends_nothing_but_events_must_be(tmp_path):
    (tmp_path / "status.json").mkdir()
    Progress(tmp_path, 20).set_state("training", 1)
    Progress(None).set_state("training", 1)
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(FederationError, match=r"events\.jsonl could not be written .*--resume"):
        Progress(tmp_path / "run", 20).set_state("training", 1)


def test_counts_of_a_resumed_run_go_on(tmp_path):
    progress = Progress(tmp_path, 20)
    progress.asked("a", 100)
    progress.failed("a", "gone", GONE)
    progress.ended("failed")
    progress = Progress(tmp_path, 20, resumed=True)
    progress.asked("a", 100)
    assert (progress.sites["a"].bytes_down, progress.sites["a"].failures) == (200, 1)


@pytest.mark.parametrize("content", ["{", "[]", '{"sites": 3}'])
def test_the_status_is_made_of_the_events_alone(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    assert Progress(tmp_path, 20, resumed=True).sites == {}
