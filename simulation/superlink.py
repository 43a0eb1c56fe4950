"""A Flower SuperLink of one's own for one run: empty working directory, own FLWR_HOME, free port, nothing left behind.

The SuperLink that `flwr run` starts by itself outlives the run, keeps the environment of the first one, and hands Ray's workers
whatever code lies in its working directory (all three were seen to happen). Hence one for each run.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from common.deployment.flower_cli import NAME, flower_environment, free_port, program
from common.errors import FederationError

MARK = "FEDMRI_PROCESS_MARK"  # in the environment of every process of a run, so that each can be found and ended
START_SECONDS = 90.0
GRACE_SECONDS = 6.0
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
def own_superlink(log: Path) -> Iterator[SuperLink]:
    """Start a SuperLink, wait for its health, and end it with all its descendants, Ray included, on any way out.

    Args:
        log: file that takes what it prints.

    Raises:
        FederationError: it does not start.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    folder = Path(tempfile.mkdtemp(prefix="fedmri-"))
    with terminable():
        superlink = None
        try:
            superlink = _start(folder, mark, log)
            yield superlink
        finally:
            with _undisturbed():
                end_marked(mark)
                if superlink is not None:
                    superlink.process.wait()
                shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, mark: str, log: Path) -> SuperLink:
    """Start on a free port; another process may take it first, so try a few."""
    home, work = folder / "home", folder / "work"
    home.mkdir()
    work.mkdir()
    environment = _environment(home, folder, mark)
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


def _environment(home: Path, folder: Path, mark: str) -> dict[str, str]:
    """Ours, without what would lead Flower or Ray astray: another cluster, another checkout, the network."""
    environment = flower_environment(home)
    environment.pop("RAY_ADDRESS", None)
    environment |= {
        MARK: mark,
        "RAY_USAGE_STATS_ENABLED": "0",
        # One thread a virtual site: they share the cores, and sums keep one order.
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    }
    if len(str(folder)) < 30:  # Ray puts sockets there, whose paths may have 107 characters
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


def end_marked(mark: str) -> None:
    """End every process whose environment carries `mark`: asked at first, then killed."""
    for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        deadline = time.monotonic() + patience
        asked: set[int] = set()
        while (alive := marked(mark)) and time.monotonic() < deadline:
            for pid in alive - asked:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            asked |= alive
            time.sleep(0.1)


def marked(mark: str) -> set[int]:
    """Process ids whose environment carries `mark`, this process and zombies left out (Linux: /proc)."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.add(int(folder.name))
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a SuperLink that did not become healthy."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    process.kill()
    process.wait()


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what stands in `finally` is done. No effect outside the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handled({signal.SIGTERM: stop, signal.SIGHUP: stop}):
        yield


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no further signal cut the tidying up short."""
    with _handled(dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGINT), signal.SIG_IGN)):
        yield


@contextmanager
def _handled(handlers: dict[signal.Signals, "signal._HANDLER"]) -> Iterator[None]:
    """Set signal handlers for a while; Python allows it in the main thread only."""
    try:
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
