"""The parent of a site's gates: a gate each request, a warm process where a gate asks for it, none where there is a doubt."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client.gate.fork_request import LEFT, TAKEN

ROOT = Path(__file__).resolve().parents[3]
PARENT = """
import json, os, sys, time
from pathlib import Path
from client.gate import preloaded

def answer_one(arguments, kept):
    what, folder, told = arguments
    warm = kept.for_bundle(Path(folder)) if what == "approved" else kept.warm
    Path(told).write_text(json.dumps({"gate": os.getpid(), "warm": bool(warm), "stamp": warm.stamp if warm else ""}))
    if what == "failed":
        kept.end()
    elif what == "doubts":  # and is at work still
        kept.end()
        while not Path(folder).with_name("go on").exists():
            time.sleep(0.05)
    elif what == "raises":
        raise ValueError("a gate that fails")
    return 0

preloaded.answer_one = answer_one
preloaded.installed_stamp = lambda: Path(sys.argv[2]).read_text()
if len(sys.argv) > 3:
    preloaded.IDLE_SECONDS, preloaded.MESSAGES = float(sys.argv[3]), int(sys.argv[4])
os.execv = lambda *_: (Path(sys.argv[2]).with_name("anew").write_text("anew"), os._exit(0))
preloaded.main()
"""


@dataclass
class Parent:
    """The process under test; the test is its SuperExec."""

    folder: Path
    process: subprocess.Popen[bytes]
    control: socket.socket
    asked: int = 0

    def begin(self, what: str = "approved") -> dict[str, Any]:
        """What a gate says that is forked now."""
        self.asked += 1
        told = self.folder / f"told-{self.asked}"
        self.control.send(json.dumps([what, str(self.folder / "bundle"), str(told)]).encode())
        assert self.control.recv(1) == TAKEN
        until(lambda: told.is_file() and told.read_text())
        found: dict[str, Any] = json.loads(told.read_text())
        return found

    def ask(self, what: str = "approved") -> dict[str, Any]:
        """The same, when the gate has ended."""
        found = self.begin(what)
        until(lambda: not alive(found["gate"]))
        return found

    def warmed(self) -> int:
        """The warm process that a gate is given, or was given before."""
        assert self.ask()["warm"]
        [found] = self.warm()
        return found

    def warm(self) -> list[int]:
        """Warm processes that are alive."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_warm(pid)]

    def _is_warm(self, pid: int) -> bool:
        with suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            return parent == self.process.pid and b"bundle_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False


def until(true: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def parent(tmp_path: Path, request) -> Iterator[Parent]:
    """It holds an empty bundle; `request.param` are the seconds and the messages that it keeps one warm for."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "pyproject.toml").write_text('[tool.flwr.app.components]\nclientapp = "app:app"\n')
    (tmp_path / "bundle" / "app.py").write_text("from flwr.clientapp import ClientApp\napp = ClientApp()\n")
    for name in ("site.toml", "installed"):
        (tmp_path / name).write_text("")
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", PARENT, str(its.fileno()), str(tmp_path / "installed"), *getattr(request, "param", ())]
    environment = os.environ | {"FEDMRI_SITE": str(tmp_path / "site.toml")}
    process = subprocess.Popen(command, env=environment, pass_fds=(its.fileno(),), cwd=ROOT)
    its.close()
    yield Parent(tmp_path, process, ours)
    ours.close()
    process.kill()
    process.wait()


def test_an_approved_bundle_is_warm_from_the_first_message_on_and_gone_at_the_end(parent) -> None:
    warm = parent.warmed()
    assert parent.ask("other")["stamp"] == parent.ask("raises")["stamp"] == parent.ask()["stamp"] != ""
    assert parent.warm() == [warm]
    parent.control.close()
    until(lambda: not alive(warm))
    assert parent.process.wait(10) == 0


def test_who_does_not_ask_is_given_none(parent) -> None:
    assert not parent.ask("other")["warm"]
    assert parent.warm() == []


@pytest.mark.parametrize("doubt", ["policy", "approvals", "bundle", "failed", "killed"])
def test_on_a_doubt_the_process_is_killed_at_once_and_another_is_started_for_who_asks(parent, doubt) -> None:
    warm = parent.warmed()
    if doubt == "failed":
        parent.ask("failed")
    elif doubt == "killed":
        os.kill(warm, signal.SIGKILL)
    else:
        name = {"policy": "site.toml", "approvals": "bundles.txt", "bundle": "bundle/app.py"}[doubt]
        (parent.folder / name).write_text("from flwr.clientapp import ClientApp\napp = ClientApp()\n# another\n")
    until(lambda: not alive(warm))  # nobody has asked anything meanwhile
    assert parent.warmed() != warm


@pytest.mark.parametrize("parent", [("1.5", "1000")], indirect=True)
def test_an_idle_site_gives_the_memory_back(parent) -> None:
    warm = parent.warmed()
    until(lambda: not alive(warm))


@pytest.mark.parametrize("parent", [("600", "2")], indirect=True)
def test_after_so_many_messages_another_process_begins(parent) -> None:
    warm = parent.warmed()
    for _ in range(2):
        parent.ask()
    until(lambda: not alive(warm))
    assert parent.warmed() != warm


def test_where_a_rule_changes_between_a_gates_fork_and_its_question_it_is_given_another(parent) -> None:
    warm, stamp = parent.warmed(), parent.ask()["stamp"]
    (parent.folder / "site.toml").write_text("# another")
    assert parent.ask()["stamp"] not in ("", stamp)  # at once, before the parent has looked
    assert not alive(warm)
    assert len(parent.warm()) == 1


def test_a_bundle_that_cannot_be_kept_is_not_tried_again(parent) -> None:
    (parent.folder / "bundle" / "app.py").write_text("raise ImportError('no')")
    parent.ask()
    until(lambda: not parent.warm())
    until(lambda: not parent.ask()["warm"])
    assert parent.warm() == []


def test_a_change_of_the_installed_code_begins_all_anew_before_the_next_message_is_read(parent) -> None:
    warm = parent.warmed()
    (parent.folder / "installed").write_text("another version")
    parent.control.send(b"[]")
    until((parent.folder / "anew").is_file)
    until(lambda: not alive(warm))


def test_a_doubted_process_is_given_to_nobody_while_the_gate_that_doubts_is_at_work(parent) -> None:
    warm = parent.warmed()
    doubting = parent.begin("doubts")
    time.sleep(0.2)  # its note is read before the next request, or with it
    assert not parent.ask("other")["warm"]
    assert parent.warmed() != warm  # who asks is given another at once: messages are answered one at a time
    (parent.folder / "go on").touch()
    until(lambda: not alive(doubting["gate"]))


def test_after_a_change_of_the_installed_code_no_gate_of_the_old_one_begins_while_another_is_at_work(parent) -> None:
    working = parent.begin("doubts")
    (parent.folder / "installed").write_text("another version")
    parent.control.send(b'["other", "", ""]')
    assert parent.control.recv(1) == LEFT  # the launcher starts it
    (parent.folder / "go on").touch()
    until(lambda: not alive(working["gate"]))
    parent.control.send(b"[]")
    until((parent.folder / "anew").is_file)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whoever_ends_the_parent_ends_the_warm_process(parent, number) -> None:
    warm = parent.warmed()
    parent.process.send_signal(number)
    until(lambda: not alive(warm))
