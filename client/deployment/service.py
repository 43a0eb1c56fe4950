"""`fedmri-site start`: the site's SuperNode and its own SuperExec, supervised.

The SuperNode holds the connection; it runs nothing. The SuperExec (`client.gate.superexec`) starts what came in, by the site's
own launchers alone (`client.gate`), which look at a bundle before anything of it is run.
"""

import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from client.deployment.archive import require_here
from client.deployment.exit_reasons import STARTED_NOW, explain, read_tail
from client.deployment.home import SiteHome
from client.deployment.keys import read_ca, read_key
from client.gate.superexec import LAUNCHERS_VARIABLE
from common.clock import moved_since, wall_offset
from common.config.site import SITE_CONFIG, SITE_VARIABLE
from common.deployment.flower_cli import LOOPBACK, SUPERNODE, flower_environment
from common.deployment.supervisor import Program, Supervisor, read_status, running
from common.errors import FederationError
from common.files import write_atomic, write_secret
from common.text import toml_value

SUPEREXEC = "flower-superexec"
PORTS_NAME, SECRET_NAME, LOG_NAME = "ports.json", "superexec.secret", "site.log"
FIRST_PORT, LAST_PORT = 20_000, 32_000  # below those that Linux lends to outgoing connections
LONGEST_PAUSE = 12.0  # a server that was cut off forgets a site within a minute: be back soon after
START_SECONDS = 30.0


@dataclass(frozen=True)
class Ports:
    """Ports of the loopback; nothing of the site listens elsewhere."""

    runtime: int
    health: int


def start(home: SiteHome) -> None:
    """Run the site in the foreground until SIGTERM, SIGINT or `stop`; then all its processes have ended.

    Raises:
        ConfigError: key or ca.crt cannot be used.
        FederationError: it runs already.
    """
    require_stopped(home)
    read_key(home.key)
    read_ca(home.ca)
    began, ports = wall_offset(), prepare(home)
    with supernode_log(home).open("a", encoding="utf-8") as log:
        log.write(f"{STARTED_NOW}\n")
    supervisor = Supervisor(
        programs(home, ports),
        home.state,
        longest_pause=LONGEST_PAUSE,
        on_exit=lambda program, code: explain(home, program, code, moved_since(began)),
    )
    supervisor.run()


def start_in_background(home: SiteHome) -> int:
    """Start a process of its own that does the same; returns its id once it supervises.

    Raises:
        ConfigError, FederationError: as `start`, or it ended at once; its log is named.
    """
    require_stopped(home)
    read_key(home.key)
    read_ca(home.ca)
    home.logs.mkdir(parents=True, exist_ok=True)
    log = home.logs / LOG_NAME
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "client.cli.main", "start", str(home.toml)],
            cwd=home.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if running(home.state) == process.pid and read_status(home.state).get("pid") == process.pid:
            return process.pid
        time.sleep(0.1)
    with suppress(ProcessLookupError):
        process.terminate()
    raise FederationError(f"The site did not start. {read_tail(log, 2000).strip() or f'Its log is {log}.'}")


def require_stopped(home: SiteHome) -> None:
    """Refuse to start a second time.

    Raises:
        FederationError: it runs.
    """
    require_here(home)
    if pid := running(home.state):
        raise FederationError(f"The site runs already (process {pid}). `fedmri-site stop {home.folder}` ends it.")


def prepare(home: SiteHome) -> Ports:
    """What the programs need in the state folder: launchers, secret, ports."""
    home.state.mkdir(parents=True, exist_ok=True)
    home.state.chmod(0o700)
    for folder in (home.logs, home.state / "flower", home.state / "work"):
        folder.mkdir(exist_ok=True)
    _write_launchers(home.state / "bin")
    secret = home.state / SECRET_NAME
    write_secret(secret, os.urandom(32), replace=True)  # a new one for every start
    ports = Ports(*_free_ports(2))
    write_atomic(home.state / PORTS_NAME, json.dumps(vars(ports)).encode())
    return ports


def programs(home: SiteHome, ports: Ports) -> tuple[Program, Program]:
    """The SuperNode and the SuperExec, as they are started."""
    environment = _environment(home)
    secret = ("--superexec-auth-secret-file", str(home.state / SECRET_NAME))
    supernode = (
        *(sys.executable, "-P", "-m", "client.deployment.supernode"),
        *("--superlink", home.address, "--root-certificates", str(home.ca)),
        *("--auth-supernode-private-key", str(home.key), "--isolation", "process", *secret),
        *("--host", "127.0.0.1", "--port", str(ports.runtime), "--health-server-address", f"127.0.0.1:{ports.health}"),
        *("--node-config", node_config(home.toml)),
    )
    executor = (sys.executable, "-P", "-m", "client.gate.superexec")
    superexec = (*executor, "--insecure", "--runtime-api-address", f"127.0.0.1:{ports.runtime}", *secret)
    return (
        Program(SUPERNODE, supernode, supernode_log(home), environment, home.state / "work"),
        Program(SUPEREXEC, superexec, home.logs / "superexec.log", environment, home.state / "work"),
    )


def supernode_log(home: SiteHome) -> Path:
    """Log file of the SuperNode; only it shows whether the SuperNode is connected."""
    return home.logs / "supernode.log"


def node_config(toml: Path) -> str:
    """Flower's `--node-config` that names site.toml, whatever characters its path has."""
    return f"{SITE_CONFIG}={toml_value(str(toml))}"


def _environment(home: SiteHome) -> dict[str, str]:
    """Ours, without what would lead Flower astray; programs are to be found among the launchers only."""
    own = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    direct = f"{own},{LOOPBACK}" if own else LOOPBACK
    path = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    launchers = str(home.state / "bin")
    return (
        flower_environment(home.state / "flower")
        | {
            "PATH": launchers,
            LAUNCHERS_VARIABLE: launchers,
            SITE_VARIABLE: str(home.toml),
            "NO_PROXY": direct,
            "no_proxy": direct,
        }
        | path
    )


def _write_launchers(folder: Path) -> None:
    """One executable for every name that Flower's SuperExec may start; each is the site's own gate."""
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND  # noqa: PLC0415  (heavy)

    if folder.exists():
        shutil.rmtree(folder)  # nothing else may be found there
    folder.mkdir(mode=0o700)
    for name in TASK_TYPE_TO_COMMAND.values():
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m client.gate {name} "$@"\n', encoding="utf-8")
        file.chmod(0o700)


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody uses at this moment."""
    found: list[int] = []
    for port in random.sample(range(FIRST_PORT, LAST_PORT), 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise FederationError(f"No free port on the loopback between {FIRST_PORT} and {LAST_PORT}.")
