"""Keeps programs alive: restarts them with growing pauses, rotates their logs, stops them in order. Linux only."""

import ctypes
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any

from common.deployment.rotated_log import copy_lines
from common.errors import FederationError
from common.files import held, locked, write_atomic

GRACE_SECONDS = 20.0  # between asking a program to end and killing it
SETTLED_SECONDS = 60.0  # after so long a life the next pause is the shortest again
TICK_SECONDS = 0.2
LOCK_TRIES = 6
_PRCTL = ctypes.CDLL(None).prctl
STATUS_NAME, LOCK_NAME = "supervisor.json", "supervisor.lock"

OnExit = Callable[["Program", int], str]  # says in a sentence why a program may have ended; "" where it does not know


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Program:
    """One program to keep alive; its output goes to `log`."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str]
    folder: Path


@dataclass
class _Life:
    """What is known of a program now."""

    process: subprocess.Popen[bytes] | None = None
    pump: threading.Thread | None = None
    began: float = 0.0
    next_try: float = 0.0
    pause: float = 0.0
    restarts: int = 0
    last_exit: int | None = None
    reason: str = ""
    since: str = field(default_factory=_now)


class Supervisor:
    """Keeps programs alive until it is stopped.

    Args:
        programs: started in this order, ended in the opposite one.
        state: folder of supervisor.json (what runs now, for `status`) and of the lock that keeps a second one away.
        first_pause, longest_pause: seconds between the end of a program and its next start; doubled each time, with jitter.
        on_exit: says why a program may have ended, for `status`.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        state: Path,
        *,
        first_pause: float = 1.0,
        longest_pause: float = 60.0,
        on_exit: OnExit | None = None,
    ) -> None:
        self.programs, self.state = tuple(programs), state
        self.first_pause, self.longest_pause = first_pause, longest_pause
        self._on_exit = on_exit or (lambda program, code: "")
        self._lives = {program.name: _Life() for program in programs}
        self._stop = threading.Event()
        self._began = _now()

    def run(self) -> None:
        """Keep all programs alive until `stop`, SIGTERM or SIGINT; then end them. Call it from the main thread.

        Raises:
            FederationError: another supervisor runs in the same folder.
        """
        with only_one(self.state), _told_to_stop(self._stop.set):
            try:
                while not self._stop.is_set():
                    changed = [self._tend(program) for program in self.programs]
                    if any(changed):
                        self._tell("running")
                    self._stop.wait(TICK_SECONDS)
            finally:
                for program in reversed(self.programs):
                    self._end(program)
                self._tell("stopped")

    def stop(self) -> None:
        """Let `run` end; may be called from anywhere."""
        self._stop.set()

    def _tend(self, program: Program) -> bool:
        """Start it where it is due, note its end; returns whether anything changed."""
        life, now = self._lives[program.name], time.monotonic()
        if life.process is None:
            if now < life.next_try:
                return False
            self._start(program, life)
            return True
        code = life.process.poll()
        if code is None:
            return False
        self._reap(life)
        life.pause = self.first_pause if now - life.began > SETTLED_SECONDS else min(self.longest_pause, life.pause * 2)
        life.next_try = now + max(life.pause, self.first_pause) * random.uniform(0.8, 1.2)  # sites do not come back all at once
        life.pause = max(life.pause, self.first_pause)
        life.last_exit, life.since = code, _now()
        life.restarts += 1
        try:
            life.reason = self._on_exit(program, code)
        except Exception:  # an explanation that fails ends nothing
            life.reason = ""
        return True

    def _start(self, program: Program, life: _Life) -> None:
        """Start it with its output pumped into the rotated log."""
        program.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            process = subprocess.Popen(
                program.command,
                cwd=program.folder,
                env=dict(program.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we end the rest in order
                preexec_fn=die_with_parent,  # noqa: PLW1509  one system call, nothing that a thread could have locked
            )
        except OSError as error:
            life.next_try, life.reason = time.monotonic() + self.longest_pause, f"cannot be started: {error.strerror}"
            return
        assert process.stdout is not None
        life.process, life.began, life.since = process, time.monotonic(), _now()
        life.pump = threading.Thread(target=copy_lines, args=(process.stdout, program.log), daemon=True)
        life.pump.start()

    def _end(self, program: Program) -> None:
        """Ask it to end; kill what is left of its process group after the grace time."""
        life = self._lives[program.name]
        if life.process is None:
            return
        with suppress(ProcessLookupError):
            life.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            life.process.wait(GRACE_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(life.process.pid, signal.SIGKILL)
        life.process.wait()
        life.last_exit, life.since = life.process.returncode, _now()
        self._reap(life)

    def _reap(self, life: _Life) -> None:
        if life.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(life.process.pid, signal.SIGKILL)  # its children do not outlive it
        if life.pump is not None:
            life.pump.join(5.0)
        life.process = life.pump = None

    def _tell(self, state: str) -> None:
        """Leave what is known for `status`."""
        told = {
            "pid": os.getpid(),
            "state": state,
            "since": self._began,
            "programs": {name: _told(life) for name, life in self._lives.items()},
        }
        with suppress(OSError):  # a full disk must not end what still runs
            write_atomic(self.state / STATUS_NAME, json.dumps(told, indent=2).encode())


def _told(life: _Life) -> dict[str, object]:
    return {
        "state": "running" if life.process else "waiting",
        "pid": life.process.pid if life.process else None,
        "since": life.since,
        "restarts": life.restarts,
        "last_exit": life.last_exit,
        "reason": life.reason,
    }


def read_status(state: Path) -> dict[str, Any]:
    """The status that this folder's supervisor last wrote; `state` is "stopped" where none is alive, whatever the file holds."""
    try:
        told = json.loads((state / STATUS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {"programs": {}}
    if not isinstance(told, dict):
        told = {"programs": {}}
    if running(state) is None:
        told["state"] = "stopped"
    return told


def running(state: Path) -> int | None:
    """Process id of the supervisor of this folder, or None where none is alive.

    Raises:
        FederationError: this user cannot look, so that "none" would be a guess.
    """
    path = state / LOCK_NAME
    try:
        if not held(path):
            return None
        text = path.read_bytes().strip()
    except OSError as error:
        raise FederationError(
            f"{path}: whether anything runs here cannot be told ({error.strerror}). Give the command as the user who started it."
        ) from None
    return int(text) if text.isdigit() else 0


def end(state: Path, patience: float = 60.0) -> bool:
    """Ask the supervisor of this folder to stop, and wait; False where none is alive.

    Raises:
        FederationError: it is still there after `patience` seconds.
    """
    pid = running(state)
    if not pid:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while running(state) is not None:
        if time.monotonic() > deadline:
            raise FederationError(f"Process {pid} has not stopped within {patience:g} s. Look at its logs under {state}.")
        time.sleep(0.1)
    return True


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel frees that of a process that dies.

    Raises:
        FederationError: another process holds it.
    """
    with _own_lock(state) as file:
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        yield


def _own_lock(state: Path) -> IO[bytes]:
    for _ in range(LOCK_TRIES):  # somebody who only looks holds it for a moment
        with suppress(BlockingIOError):
            return locked(state / LOCK_NAME, wait=False)
        time.sleep(0.05)
    raise FederationError(f"Already running here (process {running(state) or 'unknown'}). Stop that one first.")


@contextmanager
def _told_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM and SIGINT call `stop`, as long as this is the main thread."""

    def handler(number: int, frame: FrameType | None) -> None:
        stop()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def die_with_parent() -> None:
    """In the child: be ended when the supervisor is, even by kill -9 (prctl PR_SET_PDEATHSIG)."""
    _PRCTL(1, signal.SIGTERM)
