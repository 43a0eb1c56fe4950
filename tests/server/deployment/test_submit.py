"""`fedmri-server run` against a real SuperLink and SuperExec, with an app whose server does as it is told; no site is needed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from common.cli import config_path
from common.config.run import load_config
from common.deployment.flower_cli import flwr, free_port
from common.deployment.supervisor import read_status
from common.errors import ConfigError, FederationError, FedMRIError
from common.messages.code_version import TRAVELS, code_hash
from server.cli.main import main
from server.deployment import submit as module
from server.deployment.bundle import CHECKOUT, build_bundle
from server.deployment.health import superlink_serves
from server.deployment.home import Home, ServerSettings
from server.deployment.provision import init_home
from server.deployment.run_status import judged, last_round, newest_run, read_run_status
from server.deployment.status import as_json, server_status
from server.deployment.submit import Submission, SubmittedRun, _run_config, _running, follow, submit
from server.deployment.superlink_nodes import DATABASE, Nodes
from server.run.ending import ERROR_NAME
from server.run.resume import only_run

SERVER = """
import fcntl, json, os, time
from pathlib import Path
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    told, out = dict(context.run_config), Path(context.run_config["out"])
    (out / "seen.json").write_text(json.dumps(told))
    what = json.loads(told["set"])[0].removeprefix("seed=")
    (out / "checkpoints").mkdir(exist_ok=True)
    (out / "run.json").write_text("{}")
    with (out / "rounds.jsonl").open("a") as file:
        for number in (3, 4) if told["resume"] else (1, 2):
            line = {"round": number, "seconds": 1.0, "bytes_up": 1, "bytes_down": 2, "sites": ["a"], "failures": []}
            file.write(json.dumps(line) + "\\n")
    site = {"state": "answered", "last_seen": None, "seconds": 1.5, "bytes_up": 2000000, "bytes_down": 1}
    site |= {"failures": 1, "reason": "late"}
    lock = open(out / ".lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    (out / "status.json").write_text(json.dumps({"state": "training", "round": 2, "rounds": 4, "sites": {"a": site}}))
    if what == "1":
        (out / "error.json").write_text(json.dumps({"error": "Too few sites: 1 of 2."}))
        raise RuntimeError
    if what == "2":
        os._exit(1)
    if what == "3":
        time.sleep(600)
    tables = {name: {} for name in ("external", "baselines", "modality_subsets", "privacy", "provenance")}
    (out / "report.json").write_text(json.dumps({**tables, "patients": [], "rounds": [], "calibration": None}))
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Path:
    """An app with our run configuration."""
    folder = tmp_path_factory.mktemp("app") / "fedmri"
    for pattern in (*TRAVELS, "configs/*.toml"):
        file = folder / pattern.replace("**/", "").replace("*", "x")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (folder / "server" / "app.py").write_text(SERVER)
    (folder / "client" / "app.py").write_text("from flwr.clientapp import ClientApp\n\napp = ClientApp()\n")
    text = (CHECKOUT / "pyproject.toml").read_text()
    if "\nsites = " not in text:
        text = text.replace('cache = ""\n', 'cache = ""\nsites = "folders"\nresume = false\n')
    (folder / "pyproject.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("coordinator")
    (folder / "external").mkdir()
    (folder / "external" / "participants.tsv").write_text("participant_id\n")
    ports: dict[str, Any] = {name: free_port() for name in ("superlink_port", "health_port")}
    home = init_home(folder / "home", ServerSettings(address="localhost:8443", front="none", **ports))
    assert main(["start", str(home.folder), "--background"]) == 0
    yield home
    assert main(["stop", str(home.folder)]) == 0


@pytest.fixture
def run(home, app, monkeypatch, tmp_path):
    """Runs the verb; `what` tells the app how to end."""
    monkeypatch.setattr(module, "CHECKOUT", app)
    monkeypatch.setattr(module, "STATUS_SECONDS", 2.0)

    def call(what: int, *more: str, out: Path = tmp_path / "run") -> int:
        external = str(home.folder.parent / "external")
        arguments = ["run", str(home.folder), "--config", "demo", "--set", f"seed={what}", "--external", external]
        return main([*arguments, "--out", str(out), *more])

    return call


def until(true, what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.3)


@pytest.mark.deployment
@pytest.mark.slow
def test_a_good_run_is_followed_to_its_report(home, run, app, tmp_path, capsys) -> None:
    assert run(0) == 0
    told = capsys.readouterr()
    assert f"Done. The report: {tmp_path / 'run' / 'report.html'}" in told.out
    assert "</html>" in (tmp_path / "run" / "report.html").read_text()
    assert build_bundle(app).sha256 in told.out
    assert told.err.index("Round 1: 1 site, 1.0 s") < told.err.index("Round 2: 1 site, 1.0 s")
    seen = json.loads((tmp_path / "run" / "seen.json").read_text())
    assert (seen["sites"], seen["resume"], seen["config"], seen["external"]) == ("nodes", False, "demo", "external")
    assert seen["data"] == str(home.folder.parent)
    runs = flwr(home, ["ls", "fedmri"])["runs"]
    assert [one["fab-hash"] for one in runs] == [build_bundle(app).sha256]
    site = server_status(home)
    assert site.run["folder"] == str(tmp_path / "run")
    assert (site.run["round"], site.run["last_round"]["round"]) == (2, 2)
    json.dumps(as_json(site))
    assert run(0) == 1  # the folder holds a run
    assert "already holds a run" in capsys.readouterr().err
    assert run(0, "--resume") == 1
    assert "nothing to resume" in capsys.readouterr().err


@pytest.mark.deployment
@pytest.mark.slow
def test_the_servers_own_sentence_is_told_and_the_run_can_be_resumed(home, run, tmp_path, capsys) -> None:
    assert run(1) == 1
    assert "Error: Too few sites: 1 of 2." in capsys.readouterr().err
    facts = {"run": "a", "code": code_hash(), "sites": [], "external": "external", "backbone": "any"}
    config = json.loads(load_config(config_path("demo"), ("seed=0",)).to_json())
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts | {"config": config}))
    before, taken = (tmp_path / "run" / "rounds.jsonl").read_bytes(), len(flwr(home, ["ls", "fedmri"])["runs"])
    assert run(5, "--resume") == 1
    assert "cannot be resumed: seed was 0 and is 5 now" in capsys.readouterr().err
    assert (tmp_path / "run" / "rounds.jsonl").read_bytes() == before
    assert len(flwr(home, ["ls", "fedmri"])["runs"]) == taken  # Flower was not asked
    assert run(0, "--resume") == 0
    told = capsys.readouterr()
    assert "Round 3" in told.err
    assert "Round 1" not in told.err  # told before
    assert json.loads((tmp_path / "run" / "seen.json").read_text())["resume"] is True


@pytest.mark.deployment
@pytest.mark.slow
def test_one_run_at_a_time_and_cancel_stops_it(home, run, tmp_path, capsys) -> None:
    assert run(3, "--detach") == 0
    until((tmp_path / "run" / "status.json").is_file, "the run is on")
    assert run(0, out=tmp_path / "second") == 1
    assert "is on already" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()
    assert main(["status", str(home.folder)]) == 0
    assert "round 2 of 4" in capsys.readouterr().out
    assert main(["cancel", str(home.folder)]) == 0
    until(lambda: not _running(home), "the run is stopped")
    assert main(["cancel", str(home.folder)]) == 0
    assert "No run is on" in capsys.readouterr().out


@pytest.mark.deployment
@pytest.mark.slow
def test_after_a_lost_database_sites_are_let_in_again_and_the_run_is_told_as_dead(home, run, tmp_path, capsys) -> None:
    key = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(key)], check=True, stdin=subprocess.DEVNULL
    )
    assert main(["admit", str(home.folder), f"{key}.pub", "--name", "a"]) == 0
    assert run(3, "--detach") == 0
    until((tmp_path / "run" / "status.json").is_file, "the run is on")
    assert main(["status", str(home.folder)]) == 0
    assert [site.connection for site in server_status(home).sites] == ["registered"]
    superlink = read_status(home.state)["programs"]["superlink"]["pid"]
    for file in home.state.glob(f"{DATABASE}*"):
        file.unlink()
    os.kill(superlink, signal.SIGKILL)
    until(lambda: not superlink_serves(home), "it is down")
    until(lambda: superlink_serves(home), "it is back")
    until(lambda: [site.connection for site in server_status(home).sites] == ["registered"], "the hospital is let in again")
    capsys.readouterr()
    assert main(["status", str(home.folder)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "dead since" in said
    assert "Flower calls it unknown" in said
    told = as_json(server_status(home))["run"]
    assert (told["state"], told["round"]) == ("dead", 2)
    assert run(0, out=tmp_path / "next") == 0
    assert main(["status", str(home.folder)]) == 0
    assert main(["revoke", str(home.folder), "a"]) == 0


@pytest.mark.deployment
@pytest.mark.slow
def test_of_two_who_submit_at_once_one_is_taken_and_the_other_changes_nothing(home, run, tmp_path) -> None:
    def ask(name: str) -> SubmittedRun | str:
        out, external = tmp_path / name, home.folder.parent / "external"
        try:
            return submit(home, Submission("demo", ("seed=3",), (external,), out))
        except FederationError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(ask, ("one", "two")))
    taken = [answer for answer in answers if isinstance(answer, SubmittedRun)]
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert len(taken) == len(refused) == 1
    assert "is being submitted at this moment" in refused[0] or "is on already" in refused[0]
    assert [one for one in ("one", "two") if (tmp_path / one).exists()] == [taken[0].out.name]
    assert main(["cancel", str(home.folder)]) == 0
    until(lambda: not _running(home), "the run is stopped")


@pytest.mark.deployment
@pytest.mark.thorough  # Flower takes a minute to notice
def test_a_server_that_dies_without_a_word_is_told_of(home, run, capsys) -> None:
    assert run(2) == 1
    said = capsys.readouterr().err
    assert "without a result" in said
    assert "Go on with --resume." in said


@pytest.mark.deployment
@pytest.mark.slow
def test_following_survives_a_superlink_that_comes_back(home, run, monkeypatch, tmp_path, capsys) -> None:
    real, calls = Nodes.run_word, []

    def flaky(*arguments) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise FederationError("does not answer")
        return real(*arguments)

    monkeypatch.setattr(Nodes, "run_word", flaky)
    assert run(0) == 0
    assert len(calls) > 1


@pytest.mark.parametrize("says", [True, False])
def test_where_flower_calls_a_run_failed_first_its_server_is_waited_for(tmp_path, monkeypatch, says) -> None:
    """As after a jump of the coordinator's clock: Flower takes it for silence, and the ServerApp hears of that a minute later."""
    words = iter(("running", "finished:failed"))
    monkeypatch.setattr(module, "_status_patiently", lambda home, run: next(words, ""))  # then the SuperLink is silent
    monkeypatch.setattr(module, "STATUS_SECONDS", 0.01)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    out, asked = tmp_path / "run", []
    out.mkdir()
    lock = only_run(out)

    def end(status: object) -> None:
        asked.append(status)
        if len(asked) == 5:
            if says:
                (out / ERROR_NAME).write_text(json.dumps({"error": "the clock was set"}))
            lock.close()

    with pytest.raises(FederationError, match="the clock was set" if says else "'finished:failed' without a result"):
        follow(Home(tmp_path, ServerSettings(address="localhost:8443")), SubmittedRun("1", out, "x", 0), lambda entry: None, end)
    assert len(asked) >= 5


@pytest.mark.parametrize(
    ("flower", "error", "state"),
    [
        ("running", False, "waiting"),  # resumed: `submit` took the error away, and the new ServerApp has not said a word
        ("pending", False, "waiting"),
        ("running", True, "failed"),  # it has just failed, and Flower does not know yet
        ("finished:failed", False, "failed"),
        ("", False, "failed"),
        (None, False, "failed"),
    ],
)
def test_the_last_attempts_end_is_not_told_of_the_next_one(tmp_path, flower, error, state) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"state": "failed", "updated": "2026-01-02T03:04:05+00:00"}))
    if error:
        (tmp_path / ERROR_NAME).write_text("{}")
    assert judged(tmp_path, flower)["state"] == state


def wanted(folder: Path, **changes) -> Submission:
    (folder / "data" / "x").mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"config": "demo", "settings": (), "external": (folder / "data" / "x",), "out": folder / "run"}
    return Submission(**(values | changes))


def test_what_the_server_app_is_told(tmp_path) -> None:
    told = _run_config(wanted(tmp_path, settings=("seed=7",)))
    assert told["set"] == '["seed=7"]'
    assert (told["data"], told["external"]) == (str(tmp_path / "data"), "x")
    (tmp_path / "data" / "y").mkdir()
    assert _run_config(wanted(tmp_path, external=(tmp_path / "data" / "x", tmp_path / "data" / "y")))["external"] == "x+y"
    own = tmp_path / "own.toml"
    own.write_text("seed = 3\n")
    assert _run_config(wanted(tmp_path, config=str(own)))["config"] == str(own)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": "absent"}, "Configuration 'absent'"),
        ({"settings": ("nonsense=1",)}, "nonsense"),
        ({"external": (Path("nowhere"),)}, "expected the folder of a hospital"),
        ({"resume": True}, "holds no run to resume"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_starts(tmp_path, changes, said) -> None:
    with pytest.raises(FedMRIError, match=said):
        _run_config(wanted(tmp_path, **changes))


def test_external_folders_apart_are_refused(tmp_path) -> None:
    (tmp_path / "other").mkdir()
    first = wanted(tmp_path).external[0]
    with pytest.raises(ConfigError, match="side by side"):
        _run_config(wanted(tmp_path, external=(first, tmp_path / "other")))


def test_without_the_service_it_says_what_to_do(tmp_path, capsys) -> None:
    home = init_home(tmp_path / "home", ServerSettings(address="localhost:8443", front="none", health_port=free_port()))
    external = str(wanted(tmp_path).external[0])
    assert main(["run", str(home.folder), "--config", "demo", "--external", external, "--out", str(tmp_path / "run")]) == 1
    assert "fedmri-server start" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"a": 1', '"x"'])
def test_a_status_that_cannot_be_read_is_none(tmp_path, text) -> None:
    home = init_home(tmp_path / "home", ServerSettings(address="localhost:8443", front="none"))
    out = home.runs / "one"
    out.mkdir()
    (out / "status.json").write_text(text)
    (out / "rounds.jsonl").write_text(text + "\n")
    (home.state / "run.json").write_text(text)
    assert newest_run(home) == out
    assert (read_run_status(out), last_round(out)) == ({}, {})


@pytest.mark.parametrize(
    ("state", "flower", "held", "says"),
    [
        ("training", "running", False, ""),  # Flower notices a dead process within a minute
        ("training", "running", True, ""),
        ("training", "", True, "Flower calls it unknown, and its process is there still"),
        ("training", "", False, "Flower calls it unknown, and its process is gone"),
        (
            "evaluating",
            "finished:failed",
            False,
            "Flower calls it finished:failed, and its process is gone; it said 'evaluating'",
        ),
        ("training", None, True, ""),  # the SuperLink may come back
        ("training", None, False, "the SuperLink does not answer"),
        ("failed", "", False, ""),
        ("finished", "", False, ""),
    ],
)
def test_what_the_folder_says_is_held_against_its_lock_and_flowers_word(tmp_path, state, flower, held, says) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"state": state, "updated": "2026-01-02T03:04:05+00:00"}))
    lock = only_run(tmp_path)
    if not held:
        lock.close()
    told = judged(tmp_path, flower)
    lock.close()
    assert (told["state"] == "dead") is bool(says)
    assert says in told.get("why", "")
    assert told.get("dead_since", "2026-01-02T03:04:05+00:00") == "2026-01-02T03:04:05+00:00"
