"""Flower's own commands, with workarounds: `flwr` exits 0 even when it failed, a proxy swallows the loopback, and so on."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from common.errors import FederationError
from common.text import toml_value

SUPERNODE = "flower-supernode"
NAME = "fedmri"  # of the connection in FLWR_HOME/config.toml
CALL_SECONDS = 120.0
LOOPBACK = "127.0.0.1,localhost"


class SuperLinkPlace(Protocol):
    """A SuperLink that answers, as seen by the `flwr` commands that talk to it."""

    @property
    def home(self) -> Path:
        """Working folder of the commands; no project of its own lies in it."""

    @property
    def environment(self) -> dict[str, str]:
        """For every command, FLWR_HOME included."""

    @property
    def log(self) -> Path:
        """What the SuperLink prints."""


def program(name: str) -> str:
    """Path of a command that is installed beside this Python.

    Raises:
        FederationError: it is not there.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise FederationError(f"The command {name} is not installed beside {sys.executable}. Install 'flwr[simulation]'.")
    return found


def free_port() -> int:
    """A port of the loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def flower_environment(home: Path) -> dict[str, str]:
    """Ours, without what would lead Flower astray: another checkout, the network, another FLWR_HOME.

    Args:
        home: FLWR_HOME.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSTARTUP")}
    return environment | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), LOOPBACK),
    }


def flwr(place: SuperLinkPlace, arguments: list[str]) -> dict[str, Any]:
    """One `flwr` command with its answer in JSON.

    Raises:
        FederationError: it failed, or took longer than two minutes.
    """
    done = call_flwr(place, [*arguments, "--format", "json"])
    text = done.stdout[done.stdout.find("{") :] if "{" in done.stdout else "{}"
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        answer = {}
    if done.returncode or not answer.get("success"):
        said = str(answer.get("error-message") or done.stderr or done.stdout).strip()[-600:]
        raise FederationError(f"`flwr {arguments[0]}` failed: {said}")
    return answer


def call_flwr(place: SuperLinkPlace, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `flwr` and wait.

    Raises:
        FederationError: it took longer than two minutes.
    """
    try:
        return subprocess.run(
            [program("flwr"), *arguments],
            env=place.environment,
            cwd=place.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FederationError(f"`flwr {arguments[0]}` gave no answer within {CALL_SECONDS:g} s; see {place.log}.") from error


def run_status(place: SuperLinkPlace, run_id: str) -> str:
    """Flower's word for the run, such as `running` or `finished:failed`."""
    runs = flwr(place, ["ls", NAME, "--run-id", run_id]).get("runs") or [{}]
    return str(runs[0].get("status", ""))


def write_run_config(path: Path, settings: dict[str, Any]) -> None:
    """The run configuration as TOML, for `flwr run --run-config`."""
    path.write_text("".join(f"{key} = {toml_value(value)}\n" for key, value in settings.items()), encoding="utf-8")


def error_sentence(file: Path, otherwise: str) -> str:
    """The sentence that the ServerApp left in error.json."""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return otherwise
