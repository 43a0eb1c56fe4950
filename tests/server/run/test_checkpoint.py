"""What is on disk after each round, and what survives a crash."""

import json
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.errors import FederationError, WeightsError
from common.models.arrays import load_arrays
from server.events.rounds import RoundRecord
from server.run.checkpoint import Checkpoint, RunLog, latest_round, load_round, load_state, save_checkpoint
from server.run.round_lines import read_rounds

ARRAYS = {"w": np.arange(4, dtype=np.float32)}


def record(number: int, **changes) -> RoundRecord:
    settings: dict[str, Any] = {
        "attempts": 1,
        "seconds": 2.5,
        "bytes_up": 10,
        "bytes_down": 20,
        "sites": ("a", "c"),
        "train": {"dino": 0.5},
        "trained": {"a": 1, "c": 1},
    }
    settings |= {"failures": {"b": "gone"}, "external": {"mcc": 0.25}}
    return RoundRecord(round=number, **settings | changes)


def test_each_round_is_kept_and_the_latest_is_known(tmp_path):
    assert latest_round(tmp_path) is None
    for number in (1, 2):
        save_checkpoint(tmp_path, Checkpoint(number, {"w": ARRAYS["w"] + number}, {"config": "{}"}))
    assert latest_round(tmp_path) == 2
    np.testing.assert_array_equal(load_round(tmp_path, 2)["w"], ARRAYS["w"] + 2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "latest.json",
        "round-0001.safetensors",
        "round-0002.safetensors",
    ]
    assert load_arrays(tmp_path / "checkpoints" / "round-0002.safetensors")[1] == {"config": "{}", "round": "2"}


def test_damaged_checkpoints_are_named(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(1, ARRAYS, {}))
    file = tmp_path / "checkpoints" / "round-0001.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(WeightsError, match="round-0001"):
        load_round(tmp_path, 1)
    (tmp_path / "checkpoints" / "latest.json").write_text('{"round": "x"')
    assert latest_round(tmp_path) is None


def test_the_aggregators_state_is_kept_beside_the_arrays_and_must_be_of_its_round_and_model(tmp_path):
    state = {"w": ARRAYS["w"] / np.float32(3)}
    save_checkpoint(tmp_path, Checkpoint(1, ARRAYS, {}, state))
    assert load_state(tmp_path, 1, ARRAYS)["w"].tobytes() == state["w"].tobytes()
    assert load_state(tmp_path, 2, {}) == {}  # of an aggregator that has none nothing is read
    with pytest.raises(FederationError, match=r"missing \['v'\]"):
        load_state(tmp_path, 1, {"v": ARRAYS["w"]})
    with pytest.raises(WeightsError, match="not a readable"):
        load_state(tmp_path, 2, ARRAYS)
    folder = tmp_path / "checkpoints"
    (folder / "round-0001.state.safetensors").rename(folder / "round-0002.state.safetensors")
    with pytest.raises(WeightsError, match="expected round 2, it is of round 1"):
        load_state(tmp_path, 2, ARRAYS)


def test_rounds_are_lines_and_events(tmp_path):
    with RunLog(tmp_path) as log:
        log.write(record(1))
        log.write(record(2, external={}, failures={}))
        assert len(read_rounds(tmp_path)) == 2  # on disk before the run ends
    first, second = read_rounds(tmp_path)
    assert first == {
        "round": 1,
        "attempts": 1,
        "seconds": 2.5,
        "bytes_up": 10,
        "bytes_down": 20,
        "sites": ["a", "c"],
        "failures": [{"site": "b", "reason": "gone"}],
        "train": {"dino": 0.5},
        "trained": {"a": 1, "c": 1},
        "external_mcc": 0.25,
    }
    assert second["external_mcc"] is None
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/dino")] == [(1, 0.5), (2, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("external/mcc")] == [(1, 0.25)]


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    (tmp_path / "rounds.jsonl").write_text(json.dumps({"round": 1}) + '\n{"round": 2, "sec')
    assert read_rounds(tmp_path) == [{"round": 1}]
    assert read_rounds(tmp_path / "nowhere") == []
