"""A whole run at the server, in this process: real model, real sites' code, Flower's grid replaced."""

import json
import re
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from common.errors import ConfigError, DataError, FederationError, FedMRIError
from common.messages.code_version import code_hash
from common.models.arrays import load_arrays
from server.cli.main import main
from server.events.kinds import Ended
from server.events.log import read_events
from server.report.publish import render_run
from server.report.report import read_report
from server.run.ending import leave_error
from server.run.federate import federate
from server.run.plan import read_plan, run_folder, training_sites
from server.run.resume import RunFolderTakenError, only_run, require_free
from tests.server.events.replayed import require_replayed
from tests.server.made_up_sites import TINY, plan, site_nodes


def test_a_run_leaves_its_folder_whole_and_names_the_broken_site(folder, tmp_path, local_grid, caplog):
    out = tmp_path / "run"
    caplog.set_level("INFO", logger="flwr")
    federate(local_grid(site_nodes()), plan(folder, out))
    require_replayed(out)
    report = json.loads((out / "report.json").read_text())
    assert [r["round"] for r in report["rounds"]] == [1, 2]
    for entry in report["rounds"]:
        assert entry["sites"] == ["a", "b"]
        assert entry["failures"] == [{"site": "broken", "reason": DataError.public_default, "rule": "site"}]
        assert entry["external_mcc"] is not None
    assert report["external"]["n"] == 4
    assert report["provenance"]["code"] == code_hash()
    assert report["provenance"]["bounds"] == dict.fromkeys(("max_site_share", "clip_ratio", "distance_ratio"), 0.0) | {
        "max_update_ratio": 30.0
    }
    assert len(report["patients"]) == 4
    arrays, metadata = load_arrays(out / "model.safetensors")
    assert json.loads(metadata["classes"]) == list(plan(folder, out).config.task.classes)
    assert metadata["backbone_sha256"] == report["provenance"]["weights_sha256"]
    last, _ = load_arrays(out / "checkpoints" / "round-0002.safetensors")
    assert all(np.array_equal(arrays[name], last[name]) for name in arrays)
    assert not (out / "report.html").exists()  # how a page looks does not travel to hospitals
    assert caplog.messages[-1] == f"Results: {out / 'report.json'}. Their page: fedmri-server report {out}"
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").stat().st_size > 1000
    status = json.loads((out / "status.json").read_text())
    assert (status["state"], status["round"], status["rounds"]) == ("finished", 2, 2)
    assert status["sites"]["broken"]["state"] == "failed"
    assert status["sites"]["a"]["bytes_up"] == status["sites"]["a"]["bytes_down"] > 0
    assert not (out / "open-round.json").exists()


@pytest.mark.slow
def test_noise_for_whole_hospitals_is_added_and_told_with_its_warning(folder, tmp_path, local_grid, caplog):
    out, chosen = tmp_path / "run", plan(folder, tmp_path / "run", sites=("a", "b"), rounds=1)
    level = replace(chosen.config.site_level, enabled=True, noise=100.0)
    federate(local_grid(site_nodes()), replace(chosen, config=replace(chosen.config, site_level=level)))
    told = json.loads((out / "report.json").read_text())["aggregation"]
    assert told["site_level"]["rounds"] == 1
    assert "expect a model that has learned little" in told["site_level"]["warning"]
    arrays, _ = load_arrays(out / "model.safetensors")
    assert np.concatenate([a.ravel() for a in arrays.values()]).std() == pytest.approx(50, rel=0.1)  # 100 over two sites
    assert "Warning" in render_run(out, read_report(out))


@pytest.mark.slow
def test_two_runs_give_the_same_model_byte_for_byte(folder, tmp_path, local_grid):
    models = []
    for name in ("one", "two"):
        federate(local_grid(site_nodes()), plan(folder, tmp_path / name))
        models.append((tmp_path / name / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    federate(local_grid(site_nodes()), plan(folder, tmp_path / "three", sites=("a", "b"), rounds=1))
    assert (tmp_path / "three" / "model.safetensors").read_bytes() != models[0]


def test_a_damaged_report_is_written_anew_as_its_error_says_and_nobody_trains_again(folder, tmp_path, local_grid):
    out, grid = tmp_path / "run", local_grid(site_nodes())
    asked = plan(folder, out, sites=("a", "b"))
    federate(grid, asked)
    report, sent = read_report(out), len(grid.sent)
    (out / "report.json").write_text((out / "report.json").read_text()[:100])
    with pytest.raises(FedMRIError, match=r"not valid JSON .* Run: (mv \S+ \S+) and then .*--resume") as told:
        read_report(out)
    command = re.search(r"mv \S+ \S+", str(told.value))
    assert command
    subprocess.run(shlex.split(command[0]), check=True)
    federate(grid, replace(asked, resume=True))
    assert read_report(out) == report
    assert len(grid.sent) == sent


def test_a_failed_run_leaves_its_sentence_and_no_report(folder, tmp_path, local_grid):
    out = tmp_path / "run"
    with pytest.raises(FederationError), leave_error(out):
        federate(local_grid(site_nodes()), plan(folder, out, sites=("a", "broken")))
    error = json.loads((out / "error.json").read_text())["error"]
    assert error.startswith("Round 1 ended with 1 valid updates of the 2")
    assert f"broken: {DataError.public_default}" in error
    assert not (out / "report.json").exists()
    assert json.loads((out / "status.json").read_text())["state"] == "failed"
    require_replayed(out)
    assert read_events(out).entries[-1].event == Ended("failed", error)


def test_a_run_in_a_folder_in_which_another_is_at_work_changes_nothing_there(folder, tmp_path, local_grid):
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "status.json").write_text('{"state": "training"}')
    with only_run(out):
        before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
        with pytest.raises(RunFolderTakenError, match="Another process runs in"), leave_error(out):
            federate(local_grid(site_nodes()), plan(folder, out))
        with pytest.raises(RunFolderTakenError):
            require_free(out)
        assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    require_free(out)


def test_an_unknown_error_leaves_its_kind(tmp_path):
    with pytest.raises(ZeroDivisionError), leave_error(tmp_path / "run"):
        _ = 1 / 0
    assert json.loads((tmp_path / "run" / "error.json").read_text()) == {"error": "ZeroDivisionError: division by zero"}


@pytest.mark.parametrize("stop", [SystemExit(143), KeyboardInterrupt()])
def test_the_log_of_a_run_that_was_stopped_has_its_sentence_and_no_traceback(tmp_path, caplog, stop):
    with pytest.raises(type(stop)), leave_error(tmp_path / "run"):
        raise stop
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.getMessage() == json.loads((tmp_path / "run" / "error.json").read_text())["error"]


def test_a_run_that_ends_by_a_clock_that_was_set_says_so(tmp_path, monkeypatch):
    """As when Flower, an hour of silence later by its own clock, ends the app."""
    began = time.time()
    times = iter([began])  # when the run begins
    monkeypatch.setattr("common.clock.time.time", lambda: next(times, began + 7200))
    with pytest.raises(SystemExit), leave_error(tmp_path / "run"):
        sys.exit(1)
    error = json.loads((tmp_path / "run" / "error.json").read_text())["error"]
    assert "clock was set forward by 2.0 hours while the run was on" in error
    with pytest.raises(SystemExit), leave_error(tmp_path / "other"):
        sys.exit(1)
    other = json.loads((tmp_path / "other" / "error.json").read_text())["error"]
    assert "clock" not in other
    assert "stopped from outside: by `cancel`, with the service, or by a signal. Go on with it by --resume." in other


def settings(folder, tmp_path, **changes):
    (tmp_path / "tiny.toml").write_text(TINY)
    return {"config": str(tmp_path / "tiny.toml"), "set": "[]", "data": str(folder), "external": "ext"} | changes


def test_a_clock_that_was_set_right_again_before_the_end_is_said_too(tmp_path, monkeypatch):
    """As when Flower ends the app for the way back: at the end the clock is right."""
    now, ahead, looked = time.time, [0.0], threading.Event()

    def clock() -> float:
        told = now() + ahead[0]
        if ahead[0]:
            looked.set()
        return told

    def ends() -> None:
        ahead[0] = -1800.0
        assert looked.wait(60)
        ahead[0] = 0.0
        sys.exit(1)

    monkeypatch.setattr("common.clock.time.time", clock)
    monkeypatch.setattr("common.clock.LOOK_SECONDS", 0.01)
    with pytest.raises(SystemExit), leave_error(tmp_path / "run"):
        ends()
    error = json.loads((tmp_path / "run" / "error.json").read_text())["error"]
    assert "clock was set back by 30 minutes while the run was on" in error


def test_the_run_configuration_is_read(folder, tmp_path):
    given = settings(folder, tmp_path, set='["rounds=7"]', external="ext + b", cache=str(tmp_path / "c"), code=code_hash())
    read = read_plan(given, tmp_path / "run")
    assert read.config.federation.rounds == 7
    assert read.external == ("ext", "b")
    assert read.sites == ("a", "broken")
    assert read.cache == tmp_path / "c"


def test_at_a_real_federation_the_folders_beside_the_external_one_are_no_sites(folder, tmp_path):
    read = read_plan(settings(folder, tmp_path, sites="nodes", external="ext+b"), tmp_path / "run")
    assert (read.sites, read.external, read.resume) == ((), ("ext", "b"), False)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"code": "f" * 64}, FederationError, "runs other code"),
        ({"set": "rounds=7"}, ConfigError, "JSON list"),
        ({"set": '["nonsense=7"]'}, ConfigError, "nonsense"),
        ({"external": "fg"}, ConfigError, "External site 'fg' is not among .*a, b, broken, ext"),
        ({"external": "a+b+broken+ext"}, ConfigError, "No training site"),
        ({"data": "/nowhere"}, ConfigError, "'ext' is not among the site folders of /nowhere"),
        ({"config": "no-such"}, ConfigError, "no-such"),
        ({"sites": "hospitals"}, ConfigError, 'expected "folders" or "nodes"'),
        ({"sites": "nodes", "external": "fg"}, ConfigError, "External site 'fg'"),
        ({"resume": "yes"}, ConfigError, "expected true or false"),
        ({"resume": True}, FederationError, "holds no run to resume"),
    ],
)
def test_a_wrong_run_configuration_is_refused(folder, tmp_path, changes, kind, says):
    with pytest.raises(kind, match=says):
        read_plan(settings(folder, tmp_path, **changes), tmp_path / "run")


def test_a_folder_that_holds_a_run_is_not_written_over(folder, tmp_path):
    (tmp_path / "rounds.jsonl").write_text("{}\n")
    with pytest.raises(FederationError, match="already holds a run"):
        read_plan(settings(folder, tmp_path), tmp_path)


def test_defaults_need_no_argument(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMRI_CACHE", str(tmp_path))
    for name in ("a", "external"):
        (tmp_path / "example" / name / "sub-1").mkdir(parents=True)
    (tmp_path / "tiny.toml").write_text(TINY)
    out = run_folder({"out": ""}, 42)
    read = read_plan({"config": str(tmp_path / "tiny.toml"), "data": "", "external": "", "out": "", "code": "", "cache": ""}, out)
    assert (read.out, read.sites, read.external) == (tmp_path / "runs" / "42", ("a",), ("external",))


def test_sites_are_sorted_folders(folder):
    (folder / ".hidden" / "sub-1").mkdir(parents=True)
    (folder / "notes").mkdir()
    assert training_sites(folder, ("ext",)) == ("a", "b", "broken")
