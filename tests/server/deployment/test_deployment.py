"""The coordinator's real programs: SuperLink with TLS, SuperExec and nginx before them; and who is kept out."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient

from common.deployment.flower_cli import flower_environment, free_port, program
from common.deployment.supervisor import read_status, running
from server.cli.main import main
from server.deployment.credentials import read_token, token_file
from server.deployment.home import Home, ServerSettings
from server.deployment.provision import init_home
from server.deployment.service import nginx
from server.deployment.status import as_json, server_status
from server.deployment.superlink_nodes import DATABASE, connect, control_client

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")),
        reason="nginx is not installed here",
    ),
]

FLEET = ["register-node", "activate-node", "pull-messages", "push-messages", "get-run", "get-fab", "push-object", "pull-object"]
REFUSED = [
    "/",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/v1",
    "/v1/fleet",
    "/v1/fleet/",
    "/v1/control/start-run",
    "/v1/control/register-node",
    "/v1/control/list-nodes",
    "/v1/runtime/acquire-task",
    "/v1/runtime/pull-messages",
    "//v1/control/list-nodes",
    "//v1/fleet/pull-messages",
    "/v1//fleet/pull-messages",
    "/v1/fleet/../control/list-nodes",
    "/v1/fleet/../../v1/control/list-nodes",
    "/v1/fleet/%2e%2e/control/list-nodes",
    "/v1/fleet/..%2fcontrol/list-nodes",
    "/v1/fleet%2f..%2fcontrol/list-nodes",
    "/v1/fleet/.%2e/control/list-nodes",
    "/v1/fleet/%252e%252e/control/list-nodes",
    "/v1/control/../fleet/pull-messages",
    "/v1/control/list-nodes/../../fleet/pull-messages",
    "/v1/fleet/..;/control/list-nodes",
    "/v1/fleet/pull-messages/../../control/list-nodes",
    "/v1/fleet/pull-messages?x=1",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages%00",
    "/v1/fleet/pull%2dmessages",
    "/v1/fleet/\\..\\control",
    "/V1/FLEET/pull-messages",
    "/v1/fleet/pull-messages%0d%0aX: y",
    "/health",  # by POST
]


def until(true: Callable[[], object], what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.3)


def make_key(folder: Path, name: str) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(folder / name)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return folder / name


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Home]:
    """A running coordinator, with the keys of `a` and `b` admitted beside it."""
    folder = tmp_path_factory.mktemp("coordinator")
    ports: dict[str, Any] = {name: free_port() for name in ("superlink_port", "health_port")}
    settings = ServerSettings(address=f"localhost:{free_port()}", listen="", **ports)
    home = init_home(folder / "home", settings)
    for name in ("a", "b"):
        assert main(["admit", str(home.folder), f"{make_key(folder, name)}.pub", "--name", name]) == 0
    make_key(folder, "stranger")
    start(home)
    yield home
    assert main(["stop", str(home.folder)]) == 0
    assert running(home.state) is None


def start(home: Home) -> None:
    assert main(["start", str(home.folder), "--background"]) == 0, (home.state / "logs" / "service.log").read_text()


@contextlib.contextmanager
def supernode(home: Home, key: str, *, authority: Path | None = None, plain: bool = False) -> Iterator[Any]:
    """A real SuperNode with one of the keys; its output is in a file named `log`."""
    folder = home.folder.parent / f"{key}-{time.monotonic_ns()}"
    folder.mkdir()
    (folder / "secret").write_bytes(os.urandom(48))
    command = [program("flower-supernode"), "--superlink", home.settings.address, "--isolation", "process"]
    command += ["--insecure"] if plain else ["--root-certificates", str(authority or home.folder / "ca.crt")]
    command += ["--port", str(free_port()), "--superexec-auth-secret-file", str(folder / "secret"), "--max-retries", "1"]
    command += ["--auth-supernode-private-key", str(home.folder.parent / key)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=flower_environment(folder), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    vars(process)["log"] = folder / "log"
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def connection(home: Home, site: str) -> str:
    return {each.name: each.connection for each in server_status(home).sites}.get(site, "absent")


def ask(home: Home, path: str, method: str = "POST") -> int:
    """A raw request over TLS: nothing between us and nginx tidies the path."""
    context = ssl.create_default_context(cafile=str(home.folder / "ca.crt"))
    port = int(home.settings.address.rsplit(":", 1)[1])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        answer = tls.recv(200)
    return int(answer.split()[1])


def superlink_saw(home: Home, word: str) -> bool:
    return any(word in file.read_text(errors="replace") for file in home.log.parent.glob("superlink.log*"))


def test_status_shows_what_really_runs(home, capsys) -> None:
    assert main(["status", str(home.folder)]) == 0
    shown = capsys.readouterr().out
    assert "superlink" in shown
    assert "running, serving" in shown
    told = as_json(server_status(home))
    assert (told["superlink"], told["front"], told["state"]) == ("serving", "serving", "running")
    assert set(told["programs"]) == {"superlink", "superexec", "nginx"}
    assert {site["name"] for site in told["sites"]} == {"a", "b"}


def test_a_second_service_in_the_same_home_is_refused(home, capsys) -> None:
    assert main(["start", str(home.folder)]) == 1
    assert "Already running" in capsys.readouterr().err


@pytest.mark.parametrize("path", REFUSED)
def test_what_is_no_call_of_a_site_gets_nothing(home, path) -> None:
    assert ask(home, path) in (400, 403)


def test_nothing_of_what_was_refused_reached_the_superlink(home) -> None:
    for path in ("/v1/control/list-federations", "/v1/fleet/../control/list-federations", "/v1/runtime/get-nodes"):
        ask(home, path)
    ask(home, "/v1/fleet/send-node-heartbeat")  # told in the same log, later
    until(lambda: superlink_saw(home, "/v1/fleet/send-node-heartbeat"), "what is a call of a site passes")
    assert not superlink_saw(home, "list-federations")
    assert not superlink_saw(home, "get-nodes")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "HEAD"])
def test_sites_only_post(home, method) -> None:
    assert ask(home, "/v1/fleet/pull-messages", method) in (400, 403, 405)


@pytest.mark.parametrize("call", FLEET)
def test_the_calls_of_a_site_reach_the_superlink_which_refuses_those_without_a_key(home, call) -> None:
    kind = {"content-type": "application/x-protobuf", "accept": "application/x-protobuf"}
    context = ssl.create_default_context(cafile=str(home.folder / "ca.crt"))
    with httpx.Client(verify=context, trust_env=False) as client:
        answer = client.post(f"https://{home.settings.address}/v1/fleet/{call}", headers=kind, content=b"")
    assert answer.status_code in (401, 415)
    until(lambda: superlink_saw(home, f"/v1/fleet/{call}"), "it stands in the SuperLink's log")


def test_health_is_for_all_and_the_body_is_bounded(home) -> None:
    context = ssl.create_default_context(cafile=str(home.folder / "ca.crt"))
    with httpx.Client(verify=context, trust_env=False) as client:
        assert client.get(f"https://{home.settings.address}/health").status_code == 200
        large = client.post(f"https://{home.settings.address}/v1/fleet/push-object", content=b"0" * (9 * 2**20))
    assert large.status_code == 413


def test_old_tls_and_no_tls_are_refused(home) -> None:
    port = int(home.settings.address.rsplit(":", 1)[1])
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain, pytest.raises(OSError, match="protocol"):
        old.wrap_socket(plain)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        plain.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        assert b" 400 " in plain.recv(100)
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")


def test_the_superlink_itself_speaks_tls_and_on_this_machine_only(home) -> None:
    with socket.create_connection(("127.0.0.1", home.settings.superlink_port), timeout=20) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in plain.recv(100)
    listening = {line.split()[1] for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]}
    for port in (home.settings.superlink_port, home.settings.health_port):
        assert {address for address in listening if address.endswith(f":{port:04X}") and "0100007F" not in address} == set()


def test_an_unknown_key_is_refused(home) -> None:
    with supernode(home, "stranger") as node:
        assert node.wait(90) != 0
        assert "Failed to activate SuperNode" in node.log.read_text()


def test_a_site_refuses_another_authority_and_a_server_without_tls(home, tmp_path) -> None:
    other = init_home(tmp_path / "other", home.settings)
    with supernode(home, "b", authority=other.folder / "ca.crt") as node:
        until(lambda: node.poll() is not None or "CERTIFICATE_VERIFY_FAILED" in node.log.read_text(), "TLS refused")
    with supernode(home, "b", plain=True) as node:
        assert node.wait(90) != 0
    assert connection(home, "b") == "registered"  # never seen


def test_the_key_of_a_site_that_is_there_is_refused_a_second_time(home) -> None:
    with supernode(home, "a") as first:
        until(lambda: connection(home, "a") == "online", "a comes online through nginx")
        with supernode(home, "a") as second:
            assert second.wait(90) != 0
            assert "Failed to activate SuperNode" in second.log.read_text()
        assert first.poll() is None
        assert connection(home, "a") == "online"
    until(lambda: connection(home, "a") == "offline", "a has gone")


def test_the_key_of_another_site_cannot_take_a_name(home, capsys) -> None:
    assert main(["admit", str(home.folder), str(home.folder.parent / "b.pub"), "--name", "a"]) == 2
    assert "taken by another key" in capsys.readouterr().err
    assert main(["admit", str(home.folder), str(home.folder.parent / "b.pub"), "--name", "c"]) == 2
    assert "admitted already, as b" in capsys.readouterr().err
    with connect(home) as nodes:
        assert {node.name for node in nodes.all()} == {"a", "b"}


def test_a_superexec_without_the_secret_or_with_another_gets_no_task(home, tmp_path) -> None:
    (tmp_path / "secret").write_bytes(os.urandom(48))
    command = [program("flower-superexec"), "--root-certificates", str(home.folder / "ca.crt")]
    command += ["--runtime-api-address", home.superlink]
    for extra in ([], ["--superexec-auth-secret-file", str(tmp_path / "secret")]):
        before = refusals(home)
        process = subprocess.Popen(
            [*command, *extra], env=home.environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until(partial(lambda since: refusals(home) > since, before), "401 for a SuperExec without the secret")
        finally:
            process.terminate()
            process.wait(30)


CALLS: dict[str, Callable[[ControlHttpClient], object]] = {
    "list-nodes": lambda client: client.ListNodes(ListNodesRequest()),
    "list-runs": lambda client: client.ListRuns(ListRunsRequest()),
    "register-node": lambda client: client.RegisterNode(RegisterNodeRequest(public_key=b"", name="x")),
    "unregister-node": lambda client: client.UnregisterNode(UnregisterNodeRequest(node_id=1)),
    "start-run": lambda client: client.StartRun(StartRunRequest()),
    "stop-run": lambda client: client.StopRun(StopRunRequest(run_id=1)),
}


@pytest.mark.parametrize(
    ("token", "refused", "code"),
    [
        ("a" * 43, set(CALLS), 401),
        ("observer", set(CALLS) - {"list-nodes", "list-runs"}, 403),
        ("admin", set(), 0),
    ],
)
def test_the_inner_port_asks_who_calls_and_an_observer_changes_nothing(home, token: str, refused: set[str], code: int) -> None:
    shown = read_token(token_file(home.folder, token)) if token in ("admin", "observer") else token
    told = {}
    with contextlib.closing(control_client(home.superlink, home.folder / "ca.crt", shown)) as client:
        for name, call in CALLS.items():
            try:
                call(client)
            except httpx.HTTPStatusError as error:
                told[name] = error.response.status_code
    assert {name for name in CALLS if told.get(name) in (401, 403)} == refused
    assert {told[name] for name in refused} <= {code}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_call_without_a_token_is_refused(home, name: str) -> None:
    with httpx.Client(verify=ssl.create_default_context(cafile=str(home.folder / "ca.crt")), trust_env=False) as client:
        assert client.post(f"https://{home.superlink}/v1/control/{name}", content=b"").status_code == 401


def test_another_user_of_the_machine_starts_nothing_and_looks_on_only_with_a_folder(home, tmp_path, capsys) -> None:
    stranger = tmp_path / "flower"
    stranger.mkdir()
    (stranger / "config.toml").write_bytes((home.home / "config.toml").read_bytes())
    command, place = [program("flwr"), "ls", "--format", "json"], flower_environment(stranger)
    said = subprocess.run(command, env=place, cwd=stranger, capture_output=True, text=True, check=False)
    assert '"success": true' not in said.stdout
    assert main(["observer", str(home.folder), str(tmp_path / "observer")]) == 0
    capsys.readouterr()
    assert main(["observe", str(tmp_path / "observer"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["sites"]) >= {"a", "b"}
    held = {file.name for file in (tmp_path / "observer").iterdir()}
    assert held == {"ca.crt", "observer.token", "observer.toml"}
    (tmp_path / "observer" / "observer.token").write_text("the token from before it was changed at the coordinator")
    assert main(["observe", str(tmp_path / "observer")]) == 1
    assert "was changed at the coordinator, and counts no more. Ask the coordinator" in capsys.readouterr().err


def refusals(home: Home) -> int:
    files = home.log.parent.glob("superlink.log*")
    return sum(
        line.endswith('/v1/runtime/acquire-task HTTP/1.1" 401') for file in files for line in file.read_text().splitlines()
    )


def test_a_revoked_site_is_out_at_once_and_comes_back_only_when_asked_for(home, capsys) -> None:
    key = str(home.folder.parent / "b.pub")
    with supernode(home, "b") as node:
        until(lambda: connection(home, "b") == "online", "b comes online")
        assert main(["revoke", str(home.folder), "b"]) == 0
        until(lambda: node.poll() is not None, "what b asks is refused, and it ends")
    with supernode(home, "b") as node:
        assert node.wait(90) != 0
    assert main(["admit", str(home.folder), key, "--name", "b"]) == 2
    assert main(["admit", str(home.folder), key, "--name", "b", "--again"]) == 0
    with supernode(home, "b"):
        until(lambda: connection(home, "b") == "online", "b is let in again")


def test_a_superlink_that_is_killed_comes_back_with_its_sites(home) -> None:
    with supernode(home, "a"):
        until(lambda: connection(home, "a") == "online", "a comes online")
        pid = read_status(home.state)["programs"]["superlink"]["pid"]
        os.kill(pid, signal.SIGKILL)
        until(
            lambda: read_status(home.state)["programs"]["superlink"]["pid"] not in (None, pid), "the SuperLink is started again"
        )
        until(lambda: connection(home, "a") == "online", "a is there again")
    assert read_status(home.state)["programs"]["superlink"]["restarts"] == 1


def test_a_lost_database_heals_at_the_next_start(home, capsys) -> None:
    assert main(["admit", str(home.folder), str(home.folder.parent / "stranger.pub"), "--name", "late"]) == 0
    assert main(["revoke", str(home.folder), "late"]) == 0
    assert main(["stop", str(home.folder)]) == 0
    assert as_json(server_status(home))["state"] == "stopped"
    for file in home.state.glob(f"{DATABASE}*"):
        file.unlink()
    start(home)
    with connect(home) as nodes:
        assert {node.name for node in nodes.all()} == {"a", "b"}
    with supernode(home, "a"):
        until(lambda: connection(home, "a") == "online", "a comes online")


def test_a_taken_port_is_told_before_anything_starts(tmp_path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = ServerSettings(address=f"localhost:{free_port()}", superlink_port=port, health_port=free_port())
        home = init_home(tmp_path / "home", settings)
        assert main(["start", str(home.folder)]) == 2
    assert f"Port {port} of 127.0.0.1 cannot be had" in capsys.readouterr().err
    assert not (home.state / "supervisor.json").exists()


def test_nginx_itself_finds_no_fault_with_the_configuration(home) -> None:
    command = [nginx(), "-t", "-e", "stderr", "-p", f"{home.folder}/", "-c", str(home.folder / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "test is successful" in done.stderr
    assert "[warn]" not in done.stderr
