"""Judging a run by status and report, with `flwr` replaced by a script; no real SuperLink here (see tests/integration)."""

import json
import subprocess
import sys
from typing import Any

import pytest

from common.errors import FederationError
from server.run.round_lines import RoundFollower
from simulation import flower
from simulation.flower import Run, resources, run_federation
from simulation.superlink import SuperLink


@pytest.fixture
def process():
    """Stands for the SuperLink's process, alive."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield child
    child.kill()
    child.wait()


@pytest.fixture
def ended():
    """Stands for the log's stream, which has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child


@pytest.fixture
def run(tmp_path, process, monkeypatch):
    monkeypatch.setattr(flower, "POLL_SECONDS", 0.01)
    out = tmp_path / "run"
    (out / "logs").mkdir(parents=True)
    (out / "logs" / "superlink.log").write_text("all is well\nModuleNotFoundError: No module named 'x'\n")
    return Run(SuperLink(process, tmp_path, {}, out / "logs" / "superlink.log"), "1", out, out / "logs" / "run.log")


def statuses(monkeypatch, *words):
    left = list(words)
    monkeypatch.setattr(flower, "_status", lambda run: left.pop(0) if len(left) > 1 else left[0])


def watch(run, ended, told=None):
    flower._watch(run, ended, RoundFollower(run.out, None if told is None else told.append))


@pytest.mark.slow
def test_success_is_flowers_word_and_our_report(run, ended, monkeypatch):
    statuses(monkeypatch, "running", "finished:completed")
    (run.out / "report.json").write_text("{}")
    (run.out / "rounds.jsonl").write_text('{"round": 1}\n{"round": 2}\n{"rou')
    told: list[Any] = []
    watch(run, ended, told)
    assert told == [{"round": 1}, {"round": 2}]


def test_of_a_resumed_run_only_new_rounds_are_told(tmp_path):
    told: list[Any] = []
    lines = tmp_path / "rounds.jsonl"
    lines.write_text('{"round": 1}\n{"round": 2}\n')
    rounds = RoundFollower(tmp_path, told.append, told=2)
    rounds.follow()
    assert told == []
    lines.write_text('{"round": 1}\n')  # the second was not whole, and is played again
    rounds.follow()
    lines.write_text('{"round": 1}\n{"round": 2}\n')
    rounds.follow()
    assert told == [{"round": 2}]


@pytest.mark.slow
@pytest.mark.parametrize("status", ["finished:failed", "finished:completed", "finished:stopped"])
def test_without_a_report_a_finished_run_has_failed(run, ended, monkeypatch, status):
    statuses(monkeypatch, status)
    with pytest.raises(FederationError, match=f"ended as '{status}' without a result") as caught:
        watch(run, ended)
    assert "No module named 'x'" in str(caught.value)
    assert "all is well" not in str(caught.value)


def test_a_report_is_not_enough_where_flower_says_failed(run, ended, monkeypatch):
    statuses(monkeypatch, "finished:failed")
    (run.out / "report.json").write_text("{}")
    with pytest.raises(FederationError, match="finished:failed"):
        watch(run, ended)


def test_the_servers_own_sentence_is_told(run, ended, monkeypatch):
    statuses(monkeypatch, "running")
    (run.out / "error.json").write_text(json.dumps({"error": "Round 1 ended with 0 valid updates"}))
    with pytest.raises(FederationError, match=r"^Round 1 ended with 0 valid updates$"):
        watch(run, ended)


def test_a_superlink_that_dies_is_noticed(run, ended, process):
    process.kill()
    process.wait()
    with pytest.raises(FederationError, match="ended by itself"):
        watch(run, ended)


def test_a_run_that_never_ends_after_its_report_is_given_up(run, ended, monkeypatch):
    monkeypatch.setattr(flower, "ENDING_SECONDS", 0.05)
    statuses(monkeypatch, "running")
    (run.out / "report.json").write_text("{}")
    with pytest.raises(FederationError, match="did not end the run"):
        watch(run, ended)


def test_a_folder_that_holds_a_run_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(FederationError, match="already holds a run"):
        run_federation(tmp_path, {}, 2, tmp_path)


def test_the_gpus_are_shared_by_the_sites_that_run_at_once(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    found = resources(3)
    assert found["init-args-num-cpus"] == 3
    assert found["client-resources-num-gpus"] * 3 <= 1 < found["client-resources-num-gpus"] * 3 + 0.01
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resources(40) == {
        "num-supernodes": 40,
        "client-resources-num-cpus": 1,
        "init-args-num-cpus": 16,
        "client-resources-num-gpus": 0.0,
    }
