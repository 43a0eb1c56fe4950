"""A gate whose parent was killed ends, whatever its main thread waits for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import os, signal, subprocess, sys, threading
from client.gate.parent import end_without
signal.signal(signal.SIGTERM, {handler})
end_without(os.getppid(), patience={patience})
print(os.getpid(), flush=True)
with open({told!r}, "w") as file:
    file.write(str(os.getpid()))
{waits}
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
WAITS = {
    "for a process": "subprocess.run(['sleep', '600'], process_group=0)",
    "for a lock": "threading.Event().wait()",
    "in vain for its end": "import time\nwhile True:\n    time.sleep(600)",
}


@pytest.mark.parametrize(
    ("waits", "handler"),
    [
        ("for a process", "lambda *_: sys.exit(143)"),
        ("for a lock", "lambda *_: sys.exit(143)"),
        ("in vain for its end", "lambda *_: None"),  # SIGTERM does nothing: it is ended by force
    ],
)
def test_it_ends_when_its_parent_is_killed(tmp_path: Path, waits: str, handler: str) -> None:
    told = tmp_path / "pid"
    code = CHILD.format(handler=handler, told=str(told), waits=WAITS[waits], patience=1.0 if "None" in handler else 600.0)
    with subprocess.Popen([sys.executable, "-c", PARENT, code], stdout=subprocess.PIPE) as parent:
        deadline = time.monotonic() + 60
        while not (told.is_file() and told.read_text()):
            assert time.monotonic() < deadline, "the child did not begin"
            time.sleep(0.05)
        child = int(told.read_text())
        time.sleep(1.0)
        assert alive(child)  # its parent is there
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while alive(child):
        assert time.monotonic() < deadline, "it goes on without its parent"
        time.sleep(0.05)


def test_it_ends_where_the_parent_was_gone_before_it_looked(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    code = CHILD.replace("os.getppid()", str(gone.pid)).format(
        handler="lambda *_: sys.exit(143)", told=str(tmp_path / "pid"), waits=WAITS["for a lock"], patience=600.0
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False, stdout=subprocess.DEVNULL).returncode == 143


def alive(pid: int) -> bool:
    """Whether the process is there, and no mere entry of one that has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
