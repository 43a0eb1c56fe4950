"""What is on disk after each round, and what survives a crash."""

import json
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.errors import FederationError, WeightsError
from server.run.checkpoint import Checkpoint, RunLog, load_checkpoint, read_rounds, save_checkpoint
from server.strategy.round_state import RoundRecord

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


def test_the_latest_checkpoint_is_loaded(tmp_path):
    assert load_checkpoint(tmp_path) is None
    for number in (1, 2):
        save_checkpoint(tmp_path, Checkpoint(number, {"w": ARRAYS["w"] + number}, {"config": "{}"}))
    loaded = load_checkpoint(tmp_path)
    assert loaded.round == 2
    np.testing.assert_array_equal(loaded.arrays["w"], ARRAYS["w"] + 2)
    assert loaded.metadata == {"config": "{}", "round": "2"}
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "latest.json",
        "round-0001.safetensors",
        "round-0002.safetensors",
    ]


def test_damaged_checkpoints_are_named(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(1, ARRAYS, {}))
    file = tmp_path / "checkpoints" / "round-0001.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(WeightsError, match="round-0001"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "latest.json").write_text('{"round": "x"')
    with pytest.raises(FederationError, match=r"latest\.json"):
        load_checkpoint(tmp_path)


def test_the_pointer_leads_nowhere_else(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(1, ARRAYS, {}))
    (tmp_path / "checkpoints" / "latest.json").write_text('{"round": 1, "file": "../../round-0001.safetensors"}')
    assert load_checkpoint(tmp_path).round == 1


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
