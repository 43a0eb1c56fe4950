"""`fedmri-site start`, `status`, `stop`: the command lines, why a program ended, and real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from flwr.common.config import parse_config_args
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode
from hypothesis import given
from hypothesis import strategies as st

from client.cli.main import main
from client.deployment.exit_reasons import ONLINE_TRIES, STARTED_NOW, explain, is_connected, read_tail
from client.deployment.home import SiteHome
from client.deployment.provision import provision
from client.deployment.service import Ports, node_config, prepare, programs
from client.deployment.status import last_events, site_status
from common.deployment.supervisor import Program
from common.errors import ConfigError
from tests.client.deployment.tls import Authority, door

ROOT = Path(__file__).resolve().parents[3]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


@pytest.fixture
def home(tmp_path: Path, authority: Authority) -> SiteHome:
    """Of a coordinator that is not there; its path has a space, a quote and an apostrophe."""
    return provision(tmp_path / 'St. "Mary"\'s' / "bonn", f"127.0.0.1:{closed_port()}", authority.file).home


def test_the_supernodes_command_line(home: SiteHome) -> None:
    command = programs(home, Ports(21, 22))[0].command
    assert command[:4] == (sys.executable, "-P", "-m", "client.deployment.supernode")  # which ends with Flower's loop
    read = _parse_args_run_supernode().parse_args(command[4:])
    assert read.superlink == home.address
    assert read.root_certificates == str(home.ca)
    assert read.auth_supernode_private_key == str(home.key)
    assert (read.isolation, read.host, read.port, read.health_server_address) == ("process", "127.0.0.1", 21, "127.0.0.1:22")
    assert read.runtime_dependency_install is False
    assert read.insecure is False
    assert parse_config_args([read.node_config]) == {"site-config": str(home.toml)}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=60))
def test_any_path_comes_through_node_config(name: str) -> None:
    toml = Path("/") / name / "site.toml"  # a name "." is no folder of its own
    assert parse_config_args([node_config(toml)]) == {"site-config": str(toml)}


def test_what_flower_may_start_is_the_gate_alone(home: SiteHome, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("NO_PROXY", "intranet")
    stranger = home.state / "bin" / "flwr-stranger"
    stranger.parent.mkdir()
    stranger.write_text("")
    environment = programs(home, prepare(home))[1].environment
    folder = Path(environment["PATH"])
    assert folder == home.state / "bin"
    assert {p.name for p in folder.iterdir()} == set(TASK_TYPE_TO_COMMAND.values())
    assert environment["FEDMRI_SITE"] == str(home.toml)
    assert environment["FLWR_HOME"] == str(home.state / "flower")
    assert environment["PYTHONPATH"] == "/somewhere"
    assert environment["NO_PROXY"] == environment["no_proxy"] == "intranet,127.0.0.1,localhost"
    assert (home.state / "superexec.secret").stat().st_mode & 0o777 == 0o600
    assert (home.state / "superexec.secret").stat().st_size == 32


STARTER = """
import os, sys
from contextlib import suppress
from pathlib import Path
from client.gate.superexec import hold_to_launchers
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supercore.superexec.executor.types import ExecutionSpec

os.environ["PATH"] = sys.argv[2] + os.pathsep + os.environ["PATH"]  # as a .pth file of the environment may do it
if sys.argv[1] == "held":
    hold_to_launchers(Path(os.environ["FEDMRI_LAUNCHERS"]))
spec = ExecutionSpec(TaskType.CLIENT_APP, "127.0.0.1:1", "token", True, None, False, None, False, 1)
SubprocessExecutor().launch(spec)
with suppress(ChildProcessError):  # it may have ended before
    os.wait()
"""


@pytest.mark.parametrize("held", ["held", "not held"])
def test_no_path_leads_around_the_launchers(home: SiteHome, tmp_path: Path, held: str) -> None:
    """Flower's own executor, with another flwr-clientapp first on PATH: what `make setup` once brought about by itself."""
    environment = programs(home, prepare(home))[1].environment
    for folder in (home.state / "bin", tmp_path / "elsewhere"):
        folder.mkdir(exist_ok=True)
        (folder / "flwr-clientapp").write_text(f"#!/bin/sh\n/usr/bin/touch '{tmp_path}/{folder.name}-ran'\n")
        (folder / "flwr-clientapp").chmod(0o700)
    arguments = [sys.executable, "-c", STARTER, held, str(tmp_path / "elsewhere")]
    subprocess.run(arguments, env={**environment, "PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    ran = [path.name for path in tmp_path.glob("*-ran")]
    assert ran == (["bin-ran"] if held == "held" else ["elsewhere-ran"])


def test_the_executor_refuses_to_start_without_launchers(home: SiteHome, tmp_path: Path) -> None:
    from client.gate.superexec import hold_to_launchers

    with pytest.raises(ConfigError, match="no such launcher"):
        hold_to_launchers(tmp_path)
    assert "flwr-clientapp" in TASK_TYPE_TO_COMMAND.values()


def test_a_launcher_hands_its_name_and_arguments_to_the_gate(home: SiteHome, tmp_path: Path) -> None:
    prepare(home)
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "__init__.py").write_text("")
    (tmp_path / "client" / "gate.py").write_text("import sys, json; print(json.dumps(sys.argv[1:]))")
    command = [str(home.state / "bin" / "flwr-clientapp"), "--token", "a b", 'c"d']
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True, cwd="/")
    assert json.loads(done.stdout) == ["flwr-clientapp", "--token", "a b", 'c"d']


STARTED = "INFO :      Starting Flower SuperNode\n"
CONNECTED = f"{STARTED}INFO :      SuperNode ID: 12\n"
REFUSED = f"{STARTED}ERROR :     Exit Code: 305\nFailed to initialize\n[code: 2004] Failed to activate SuperNode.\n"
TURNED_AWAY = f"{CONNECTED}INFO :      SuperNode terminated gracefully.\n"


def why(home: SiteHome, text: str, code: int = 1, name: str = "flower-supernode", moved: float = 0.0) -> str:
    log = home.logs / "supernode.log"
    log.write_text(text)
    return explain(home, Program(name, (), log, {}, home.state), code, moved)


def test_an_unknown_key(home: SiteHome) -> None:
    assert f"send {home.public_key} to the coordinator" in why(home, REFUSED * 3)
    assert "another copy of this site" in why(home, REFUSED * 3)  # a restored one: Flower says the same of both


def test_a_site_that_was_cut_off_a_moment_ago(home: SiteHome) -> None:
    assert "still thinks that this site is online" in why(home, CONNECTED + REFUSED)
    assert "does not know this site's key" in why(home, CONNECTED + REFUSED * (ONLINE_TRIES + 1))
    assert "does not know this site's key" in why(home, TURNED_AWAY + REFUSED)


def test_a_network_that_ended_in_a_handshake(tmp_path: Path, home: SiteHome, authority: Authority) -> None:
    text = f"{CONNECTED}ERROR :     SSL/TLS handshake error detected.\nWARNING :   Giving up reconnection after 0.66 seconds\n"
    assert not is_connected(text)
    assert "does not answer" in why(home, text)  # as it is now: nobody listens
    with door(*authority.issue(tmp_path)) as port:
        back = provision(tmp_path / "back", f"127.0.0.1:{port}", authority.file).home
        assert "was not reached a moment ago, and is now; retrying" in why(back, text)


def test_a_certificate_that_is_not_trusted(tmp_path: Path, home: SiteHome, authority: Authority) -> None:
    text = f"{STARTED}Exit Code: 305\n[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed\n"
    with door(*authority.issue(tmp_path, host="other.example.org")) as port:
        wrong = provision(tmp_path / "other", f"127.0.0.1:{port}", authority.file).home
        assert "for another name than 127.0.0.1" in why(wrong, text)
    assert "does not answer" in why(home, text)


def test_a_first_signature_that_is_refused_is_the_clock(tmp_path: Path, authority: Authority) -> None:
    text = (
        f"{STARTED}Exit Code: 305\nFailed to initialize\nClient error '401 Unauthorized' for url 'https://x/v1/fleet/activate'\n"
    )
    with door(*authority.issue(tmp_path), clock=7200.0) as port:
        late = provision(tmp_path / "late", f"127.0.0.1:{port}", authority.file).home
        assert "its clock is 2.0 hours behind the server's. One of the two is wrong" in why(late, text)
    with door(*authority.issue(tmp_path), status=502) as port:
        early = provision(tmp_path / "early", f"127.0.0.1:{port}", authority.file).home
        assert "not the server behind it (HTTP 502)" in why(early, text.replace("401", "502"))


def test_a_refused_signature_is_the_clock_or_the_key(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue(tmp_path)
    with door(*pair, clock=-7200.0) as port:
        wrong = provision(tmp_path / "early", f"127.0.0.1:{port}", authority.file).home
        told = why(wrong, TURNED_AWAY, 0)
        assert (
            "its clock is 2.0 hours ahead of the server's. This machine's clock has not been set since the site started" in told
        )
        assert "ring the coordinator" in told
        told = why(wrong, TURNED_AWAY, 0, moved=7200.0)
        assert "This machine's clock was set forward by 2.0 hours since the site started: set it right (NTP)" in told
        told = why(wrong, f"{CONNECTED}{STARTED_NOW}\n{STARTED}SuperNode terminated gracefully.\n", 0)
        assert "One of the two is wrong" in told  # it was another start that was connected
    with door(*pair) as port:
        revoked = provision(tmp_path / "revoked", f"127.0.0.1:{port}", authority.file).home
        assert "may have been taken back" in why(revoked, TURNED_AWAY, 0)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (f"{STARTED}Exit Code: 302\n", 1, "private key"),
        (f"{STARTED}Exit Code: 606\n", 1, "another version"),
        (f"{STARTED}Exit Code: 600\n", 1, "code 600"),
        (f"{STARTED}[Errno 98] address already in use\n", 1, "loopback port"),
        (CONNECTED, -9, "signal 9"),
        ("", 3, "exit 3"),
    ],
)
def test_other_ends(home: SiteHome, text: str, code: int, words: str) -> None:
    assert words in why(home, text, code)


@pytest.mark.parametrize(
    ("text", "connected"),
    [
        ("", False),
        (STARTED, False),
        (CONNECTED, True),
        (CONNECTED + "WARNING :   Connection attempt failed, retrying in 2.00 seconds\n", False),
        (CONNECTED + "Connection attempt failed, retrying\nConnection successful after 3.00 seconds and 2 tries.\n", True),
        (CONNECTED + STARTED, False),
        (TURNED_AWAY, False),
    ],
)
def test_connected_or_not_stands_in_the_log(text: str, connected: bool) -> None:
    assert is_connected(text) is connected


def test_the_end_of_a_log_reaches_into_the_rotated_one(tmp_path: Path) -> None:
    (tmp_path / "x.log.1").write_text("older\n")
    (tmp_path / "x.log").write_text("newer\n")
    assert read_tail(tmp_path / "x.log") == "older\nnewer\n"
    assert read_tail(tmp_path / "x.log", 8) == "r\nnewer\n"
    assert read_tail(tmp_path / "x.log", 3) == "er\n"
    assert read_tail(tmp_path / "gone.log") == ""


def test_last_events_of_the_audit_log(home: SiteHome) -> None:
    events = ("in", "out", "answered", "asked")  # the first two as logs of earlier versions have them
    lines = [{"event": event, "time": f"t{number}"} for number, event in enumerate(events, start=1)]
    (home.state / "audit.jsonl").write_text("cut}\n" + "\n".join(map(json.dumps, lines)) + '\n[1]\n"x"\n{"event": "in"')
    assert last_events(home) == {"asked": "t4", "answered": "t3", "refused": None}


def test_status_of_a_stopped_site(home: SiteHome, capsys) -> None:
    assert main(["status", str(home.folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "stopped"
    assert told["connected"] is False
    assert main(["stop", str(home.folder)]) == 0
    assert "was not running" in capsys.readouterr().out


@pytest.mark.parametrize("spoil", [lambda home: home.key.chmod(0o644), lambda home: home.ca.write_text("x")])
@pytest.mark.parametrize("words", [[], ["--background"]])
def test_what_cannot_work_is_not_started(home: SiteHome, spoil, words: list[str], capsys) -> None:
    spoil(home)
    assert main(["start", str(home.folder), *words]) == 2
    assert "Error:" in capsys.readouterr().err
    assert not (home.state / "bin").exists()


def of_site(home: SiteHome) -> list[int]:
    """Processes of this site, by their environment."""
    wanted, found = f"FEDMRI_SITE={home.toml}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def until(true: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.3)


@pytest.fixture
def tidy(home: SiteHome) -> Iterator[None]:
    yield
    with suppress(Exception):
        main(["stop", str(home.folder)])
    for pid in of_site(home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.deployment
@pytest.mark.usefixtures("tidy")
def test_a_site_without_its_server_keeps_trying_and_stops_whole(home: SiteHome, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert main(["start", str(home.folder), "--background"]) == 0
    until(lambda: "Connection attempt failed" in read_tail(home.logs / "supernode.log"), "a first try")
    until(lambda: site_status(home)["supernode_healthy"], "the SuperNode's health")
    told = site_status(home)
    assert told["state"] == "running"
    assert told["connected"] is False
    assert {life["state"] for life in told["programs"].values()} == {"running"}
    until(lambda: len(of_site(home)) == 3, "two programs, and the process that gates are forked from, alone")
    capsys.readouterr()
    assert main(["status", str(home.folder)]) == 1
    assert "not reached yet" in " ".join(capsys.readouterr().out.split())
    assert main(["start", str(home.folder)]) == 1
    assert "runs already" in capsys.readouterr().err

    before = told["programs"]["flower-superexec"]["pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: site_status(home)["programs"]["flower-superexec"]["pid"] not in (before, None), "the SuperExec's return")

    assert main(["stop", str(home.folder)]) == 0
    assert of_site(home) == []
    assert site_status(home)["state"] == "stopped"


@pytest.mark.slow
@pytest.mark.deployment
@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_start_ends_everything(home: SiteHome, number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "client.cli.main", "start", str(home.folder)], env=environment, cwd=ROOT)
    until(lambda: "Starting Flower SuperExec" in read_tail(home.logs / "superexec.log"), "the SuperExec")
    until(
        lambda: len(of_site(home)) == 3, "SuperNode, SuperExec, and what gates are forked from"
    )  # each may fork for a moment while it starts
    process.send_signal(number)
    process.wait(60)
    until(lambda: not of_site(home), "their end")
