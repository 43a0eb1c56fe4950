"""Real processes: kept alive, restarted with growing pauses, ended with their children."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from common.deployment import rotated_log, supervisor
from common.deployment.supervisor import Program, Supervisor, end, only_one, read_status, running
from common.errors import FederationError


def program(folder: Path, code: str, name: str = "one") -> Program:
    return Program(name, (sys.executable, "-uc", code), folder / f"{name}.log", dict(os.environ), folder)


def read(log: Path) -> str:
    """What stands in it; nothing while it is absent, as between two names."""
    try:
        return log.read_text()
    except FileNotFoundError:
        return ""


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def supervised(tmp_path):
    """Runs a supervisor in a thread (signals are tried in a process of its own)."""
    started: list[tuple[Supervisor, threading.Thread]] = []

    def start(*programs: Program, **options) -> Supervisor:
        one = Supervisor(programs, tmp_path, first_pause=0.05, longest_pause=0.2, **options)
        thread = threading.Thread(target=one.run)
        thread.start()
        started.append((one, thread))
        return one

    yield start
    for one, thread in started:
        one.stop()
        thread.join(30)


@pytest.mark.slow
def test_a_program_that_ends_is_started_again_and_its_output_kept(tmp_path, supervised) -> None:
    supervised(program(tmp_path, "print('here'); raise SystemExit(3)"), on_exit=lambda p, code: f"{p.name} ended with {code}")

    def told() -> dict:
        return read_status(tmp_path)["programs"].get("one", {})

    until(lambda: told().get("restarts", 0) >= 3)
    assert (told()["last_exit"], told()["reason"]) == (3, "one ended with 3")
    assert (tmp_path / "one.log").read_text().count("here") >= 3


@pytest.mark.slow
def test_pauses_double_up_to_the_longest(tmp_path, supervised) -> None:
    one = supervised(program(tmp_path, "raise SystemExit(1)"))
    seen: list[Any] = []

    def restarted() -> bool:
        life = one._lives["one"]
        if life.pause and (not seen or seen[-1] != life.pause):
            seen.append(life.pause)
        return life.restarts >= 5

    until(restarted)
    assert seen == sorted(seen)
    assert seen[-1] == 0.2
    assert set(seen) <= {0.05, 0.1, 0.2}


def test_the_log_is_rotated(tmp_path, supervised, monkeypatch) -> None:
    monkeypatch.setattr(rotated_log, "LOG_BYTES", 2000)
    supervised(program(tmp_path, "for i in range(2000): print('a line', i)\nimport time; time.sleep(60)"))
    until(
        lambda: any("a line 1999\n" in log.read_text() for log in tmp_path.glob("one.log"))
    )  # all is written: no file is between two names
    assert sum(1 for _ in tmp_path.glob("one.log*")) == rotated_log.LOG_FILES + 1
    assert all(log.stat().st_size <= 2000 for log in tmp_path.glob("one.log*"))


def test_a_program_that_cannot_be_started_is_told_of(tmp_path, supervised) -> None:
    absent = Program("absent", (str(tmp_path / "nothing"),), tmp_path / "absent.log", {}, tmp_path)
    supervised(absent, program(tmp_path, "import time; time.sleep(60)"))
    until(lambda: "cannot be started" in read_status(tmp_path)["programs"].get("absent", {}).get("reason", ""))
    assert read_status(tmp_path)["programs"]["one"]["state"] == "running"


CHILD = """
import sys
from contextlib import nullcontext
from pathlib import Path
from common.deployment.supervisor import Program, Supervisor
folder = Path(sys.argv[1])
code = "import os,subprocess,sys,time; c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
code += "open('pids', 'w').write(f'{os.getpid()} {c.pid}\\\\n'); time.sleep(600)"
import os
Supervisor([Program("one", (sys.executable, "-c", code), folder / "one.log", dict(os.environ), folder)], folder).run()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_ends_the_supervisor_ends_its_programs(tmp_path, number) -> None:
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(supervisor.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], env=environment)
    until(lambda: (tmp_path / "pids").is_file() and (tmp_path / "pids").read_text().endswith("\n"))
    child, grandchild = map(int, (tmp_path / "pids").read_text().split())
    assert running(tmp_path) == process.pid
    os.kill(process.pid, number)
    assert process.wait(30) == (0 if number != signal.SIGKILL else -9)

    def gone(pid: int) -> bool:
        try:
            return "State:\tZ" in (Path("/proc") / str(pid) / "status").read_text()
        except OSError:
            return True

    until(lambda: gone(child))
    if number != signal.SIGKILL:
        assert gone(grandchild)
    else:  # the kernel tells the program only; its own children are its own to end
        os.kill(grandchild, signal.SIGKILL)
    assert running(tmp_path) is None
    assert read_status(tmp_path)["state"] == "stopped"


def test_two_cannot_run_in_one_folder(tmp_path, supervised) -> None:
    supervised(program(tmp_path, "import time; time.sleep(60)"))
    until(lambda: running(tmp_path))
    with pytest.raises(FederationError, match=f"Already running here .process {os.getpid()}"), only_one(tmp_path):
        pass


def test_end_waits_and_says_whether_there_was_one(tmp_path) -> None:
    assert not end(tmp_path)
    code = "import sys, pathlib; from common.deployment.supervisor import Supervisor as S; S([], pathlib.Path(sys.argv[1])).run()"
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(supervisor.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    until(lambda: running(tmp_path))
    assert end(tmp_path)
    assert process.wait(10) == 0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"pid": 1}', "\xff"])
def test_a_damaged_status_is_no_crash(tmp_path, text) -> None:
    (tmp_path / "supervisor.json").write_text(text, encoding="latin-1")
    assert read_status(tmp_path)["state"] == "stopped"
    json.dumps(read_status(tmp_path))


def read_only(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """The command, in a namespace of its own in which the folder is mounted read-only."""
    mounts = f'mount --bind "{folder}" "{folder}" && mount -o remount,bind,ro "{folder}" && exec "$@"'
    apart = ("unshare", "--mount", "--map-root-user", "sh", "-c")
    tried = shutil.which("unshare") and subprocess.run([*apart, mounts, "sh", "true"], check=False, capture_output=True)
    if not tried or tried.returncode:
        pytest.skip("no namespaces for mounts here")
    return subprocess.run([*apart, mounts, "sh", *command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("held", [True, False])
def test_whether_it_runs_is_seen_on_a_read_only_file_system_too(tmp_path: Path, held: bool) -> None:
    """Linux remounts a disk with errors so, and whoever then reads "stopped" lets the processes run on."""
    ask = f"from pathlib import Path; from common.deployment.supervisor import running; print(running(Path({str(tmp_path)!r})))"
    with only_one(tmp_path) if held else nullcontext():
        said = read_only(tmp_path, sys.executable, "-c", ask)
    assert said.stdout.strip() == (str(os.getpid()) if held else "None"), said.stderr


def test_what_cannot_be_looked_at_is_not_called_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(supervisor, "held", closed)
    with pytest.raises(FederationError, match=r"supervisor.lock: whether anything runs here .*Permission denied.* as the user"):
        running(tmp_path)
