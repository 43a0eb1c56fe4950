"""SuperExec's way to a gate: forked where it can be, by the launcher where it cannot; looked for no more often than is due."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, TaskType
from flwr.supercore.superexec.executor import ExecutionSpec

from client.gate.executor import PreloadedExecutor
from client.gate.fork_request import LEFT
from client.gate.polling import LONGEST, SHORTEST, pause_after

SPEC = ExecutionSpec(TaskType.CLIENT_APP, "127.0.0.1:1", "token", True, None, False, os.getpid(), False, 1)


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch) -> Path:
    """It notes that it was started."""
    path = tmp_path / "flwr-clientapp"
    path.write_text(f"#!/bin/sh\necho launched >> '{tmp_path}/said'\n")
    path.chmod(0o700)
    monkeypatch.setitem(TASK_TYPE_TO_COMMAND, TaskType.CLIENT_APP, str(path))
    monkeypatch.setenv("FEDMRI_SITE", str(tmp_path / "site.toml"))
    (tmp_path / "site.toml").write_text("")
    return path


@pytest.fixture
def executor(launcher: Path, monkeypatch) -> Iterator[PreloadedExecutor]:
    monkeypatch.setattr("client.gate.executor.PRELOADED", "tests_fake_preloaded")
    (launcher.parent / "tests_fake_preloaded.py").write_text(
        "import socket, sys, os\nfrom pathlib import Path\ncontrol = socket.socket(fileno=int(sys.argv[1]))\n"
        f"folder = Path({str(launcher.parent)!r})\n"
        "while part := control.recv(10_000):\n"
        "    (folder / 'forked').write_bytes(part)\n"
        "    answer = folder / 'answer'\n"
        "    control.send(answer.read_bytes() if answer.exists() else b't') if not (folder / 'silent').exists() else None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(launcher.parent))
    one = PreloadedExecutor()
    yield one
    one.close()
    assert one.process is not None
    one.process.wait(10)


def until(there: Path) -> None:
    deadline = time.monotonic() + 30
    while not (there.is_file() and there.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_gate_is_asked_of_the_process_that_has_its_code(executor, launcher) -> None:
    assert executor.launch(SPEC).status == "accepted"
    until(launcher.parent / "forked")
    told = (launcher.parent / "forked").read_text()
    assert told == (
        '["flwr-clientapp", "--runtime-api-address", "127.0.0.1:1", "--token", "token", "--insecure", '
        f'"--parent-pid", "{os.getpid()}"]'
    )
    assert not (launcher.parent / "said").exists()


def test_without_it_the_launcher_starts_one_and_the_next_is_forked_again(executor, launcher) -> None:
    os.kill(executor.process.pid, signal.SIGKILL)
    executor.process.wait()
    executor.launch(SPEC)
    until(launcher.parent / "said")
    executor.launch(SPEC)
    until(launcher.parent / "forked")
    assert (launcher.parent / "said").read_text() == "launched\n"


def test_what_is_not_forked_the_launcher_starts(executor, launcher) -> None:
    (launcher.parent / "answer").write_bytes(LEFT)
    executor.launch(SPEC)
    until(launcher.parent / "said")
    assert executor.process.poll() is None  # nothing is wrong with it


def test_a_process_that_gives_no_answer_is_ended_and_the_launcher_starts_the_gate(executor, launcher, monkeypatch) -> None:
    executor.launch(SPEC)  # it is there by now
    silent = executor.process
    (launcher.parent / "silent").touch()
    monkeypatch.setattr("client.gate.executor.SECONDS", 0.5)
    executor.launch(SPEC)
    until(launcher.parent / "said")
    assert silent.poll() is not None
    assert executor.process is not silent


def test_a_launcher_that_was_changed_is_what_starts_gates(executor, launcher) -> None:
    launcher.write_text(launcher.read_text() + "\n")
    executor.launch(SPEC)
    until(launcher.parent / "said")
    assert not (launcher.parent / "forked").exists()


@pytest.mark.parametrize(("waited", "pause"), [(0.0, SHORTEST), (20.0, 1.0), (3600.0, LONGEST)])
def test_a_look_is_due_the_sooner_the_shorter_ago_something_came(waited, pause) -> None:
    assert pause_after(waited) == pause


def test_flowers_superexec_takes_the_executor(launcher, monkeypatch) -> None:
    from flwr.supercore.superexec import run_superexec
    from flwr.supercore.superexec.executor import get_executor

    from client.gate.superexec import PAUSE_VARIABLE, PLACE, fork_gates

    monkeypatch.setenv(PAUSE_VARIABLE, "1")
    monkeypatch.setattr(run_superexec, PLACE, get_executor)
    monkeypatch.setattr(PreloadedExecutor, "_start", lambda self: None)
    assert fork_gates()
    assert isinstance(vars(run_superexec)[PLACE]("subprocess", executor_config=None, insecure=True), PreloadedExecutor)
    assert not fork_gates()  # Flower's own is not there any more
