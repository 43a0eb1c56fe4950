"""A Flower SuperLink of one's own for one run: empty working directory, own FLWR_HOME, free port, nothing left behind.

The SuperLink that `flwr run` starts by itself outlives the run, keeps the environment of the first one, and hands Ray's workers
whatever code lies in its working directory (all three were seen to happen). Hence one for each run.
"""

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.deployment.flower_cli import NAME, flower_environment, free_port, program
from common.errors import FederationError
from simulation.cluster import Cluster
from simulation.marked_processes import GRACE_SECONDS, MARK, ONE_THREAD, end_marked, terminable, undisturbed

RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # what `ray.init` joins to the environment that Flower asks for
START_SECONDS = 90.0
PORT_TRIES = 3
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business on the loopback


@dataclass(frozen=True)
class SuperLink:
    """A SuperLink that answers. `environment` is for every `flwr` command that talks to it."""

    process: subprocess.Popen[bytes]
    home: Path
    environment: dict[str, str]
    log: Path


@contextmanager
def own_superlink(log: Path, cluster: Cluster | None = None) -> Iterator[SuperLink]:
    """Start a SuperLink, wait for its health, and end it with all its descendants, Ray included, on any way out.

    Args:
        log: file that takes what it prints.
        cluster: that Ray is to use. Its machines find the app in a folder beside the log for as long, and it is not ended.

    Raises:
        FederationError: it does not start.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    folder = Path(tempfile.mkdtemp(prefix="fedmri-", dir=log.parent if cluster else None))
    with terminable():
        superlink = None
        try:
            superlink = _start(folder, mark, log, cluster)
            yield superlink
        finally:
            with undisturbed():
                end_marked(mark)
                if superlink is not None:
                    superlink.process.wait()
                shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, mark: str, log: Path, cluster: Cluster | None) -> SuperLink:
    """Start on a free port; another process may take it first, so try a few."""
    home, work = folder / "home", folder / "work"
    home.mkdir()
    work.mkdir()
    environment = _environment(home, folder, mark, cluster)
    for _ in range(PORT_TRIES):
        port = free_port()
        text = f'[superlink]\ndefault = "{NAME}"\n\n[superlink.{NAME}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (home / "config.toml").write_text(text, encoding="utf-8")
        command = [program("flower-superlink"), "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--disable-runtime-dependency-installation"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we end the rest in order
            )
        if _healthy(process, port):
            return SuperLink(process, home, environment, log)
        _end(process)
    raise FederationError(f"Flower's SuperLink did not start within {START_SECONDS:g} s; its log is {log}.")


def _environment(home: Path, folder: Path, mark: str, cluster: Cluster | None) -> dict[str, str]:
    """Ours, without what would lead Flower or Ray astray: another cluster, another checkout, the network."""
    environment = flower_environment(home)
    environment.pop("RAY_ADDRESS", None)
    environment |= {
        MARK: mark,
        "RAY_USAGE_STATS_ENABLED": "0",
        **ONE_THREAD,
    }
    if cluster:  # whose workers have the environment of their own machine, and this
        variables = {MARK: mark, **ONE_THREAD}
        environment |= {"RAY_ADDRESS": cluster.address, RAY_JOB: json.dumps({"runtime_env": {"env_vars": variables}})}
    elif len(str(folder)) < 30:  # Ray puts sockets there, whose paths may have 107 characters
        environment["RAY_TMPDIR"] = str(folder)
    return environment


def _healthy(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until it answers; False when it ended or took too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), LOCAL.open(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            if answer.status == 200:
                return True
        time.sleep(0.2)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a SuperLink that did not become healthy."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    process.kill()
    process.wait()
