"""Nothing is left running: a process tree that hides in sessions of its own is found by its mark and ended."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from common.deployment.flower_cli import program
from common.errors import FederationError
from simulation import marked_processes, superlink
from simulation.marked_processes import MARK, end_marked, marked, terminable
from simulation.superlink import own_superlink

TREE = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) < 2:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
time.sleep(600)
"""


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_detached_stubborn_tree_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(marked_processes, "GRACE_SECONDS", 1.0)
    mark, script = uuid.uuid4().hex, tmp_path / "tree.py"
    script.write_text(TREE)
    child = subprocess.Popen([sys.executable, str(script)], env=os.environ | {MARK: mark}, start_new_session=True)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=os.environ | {MARK: mark + "0"})
    try:
        wait_for(lambda: len(marked(mark)) == 2)
        end_marked(mark)
        assert marked(mark) == set()
        assert child.wait(5) == -signal.SIGKILL
        assert other.poll() is None  # another run's
    finally:
        for process in (child, other):
            process.kill()
            process.wait()


def test_sigterm_becomes_an_exception_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, terminable():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_superlink_that_cannot_start_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(superlink, "program", lambda name: "/bin/false")
    folders = set(Path("/tmp").glob("fedmri-*"))
    with pytest.raises(FederationError, match="did not start"), own_superlink(tmp_path / "log"):
        pytest.fail("it started")
    assert set(Path("/tmp").glob("fedmri-*")) <= folders


def test_an_absent_program_is_named():
    with pytest.raises(FederationError, match="no-such-command is not installed"):
        program("no-such-command")
