"""A warm process of an approved bundle: one answer a child, nothing from message to message, gone on any doubt."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.gate import warm_bundle
from client.gate.bundle_process import ENDED, TOO_LATE, request_bytes, run_bundle
from client.gate.kept_process import KeptProcess
from client.gate.warm_bundle import WarmProcess
from common.errors import FederationError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
PYPROJECT = '[tool.flwr.app.components]\nclientapp = "app:app"\n'
APP = """
import os, sys, threading, time
from pathlib import Path
import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
count = [0]
{first}

@app.train()
def train(message, context):
    count[0] += 1
    told = {{"count": count[0], "pid": os.getpid(), "cwd": os.getcwd(), "mark": os.environ.get("MARK", "")}}
    told |= {{"home": os.environ.get("FEDMRI_SITE", ""), "drawn": float(np.random.random()), "name": sys.modules["app"].__file__}}
    told |= {{"open": str(sorted(os.listdir("/proc/self/fd")))}}
    os.environ["MARK"] = "set"
    os.chdir("/")
    context.state["seen"] = ConfigRecord({{"count": count[0]}})
    {body}
    return Message(RecordDict({{"told": ConfigRecord(told)}}), reply_to=message)
"""


@pytest.fixture(autouse=True)
def identity(monkeypatch) -> None:
    """What Flower knows of the task that a process is for."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 7)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., WarmProcess]]:
    """Starts a bundle's warm process; what is left of it is ended."""
    started = []

    def one(body: str = "pass", first: str = "") -> WarmProcess:
        folder = tmp_path / "bundle"
        folder.mkdir()
        (folder / "pyproject.toml").write_text(PYPROJECT)
        (folder / "app.py").write_text(APP.format(body=body.replace("\n", "\n    "), first=first))
        (tmp_path / "site.toml").write_text("")
        started.append(WarmProcess.start(folder, policy(tmp_path)))
        return started[-1]

    yield one
    for warm in started:
        warm.end()


def policy(folder: Path) -> tuple[Path, ...]:
    return folder / "site.toml", folder / "bundles.txt"


def request() -> tuple[Message, Context]:
    message = Message(RecordDict(), 7, "train", ttl=100.0)
    message.metadata.__dict__["_message_id"] = "m1"
    return message, Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})


def ask(warm: WarmProcess, seconds: float = 60.0, most: int = 100_000) -> tuple[dict[str, object], Context]:
    content, context = run_bundle(*request(), warm.bundle.folder, seconds=seconds, most=most, warm=warm.bundle)
    return dict(content["told"]), context  # type: ignore[arg-type]


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends; one that nobody has waited for counts as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_nothing_is_left_from_one_message_to_the_next(start, tmp_path) -> None:
    warm = start("told['torch'] = float(torch.rand(1))", "import torch; np.random.random(), torch.rand(1)")
    (first, state), (second, _) = ask(warm), ask(warm)
    assert (first["count"], second["count"]) == (1, 1)
    assert (first["mark"], second["mark"]) == ("", "")
    assert first["cwd"] == second["cwd"] == str(warm.bundle.folder)
    assert first["home"] == ""
    assert first["name"] == str(warm.bundle.folder / "app.py")
    assert len({first["pid"], second["pid"], warm.process.pid}) == 3
    assert first["drawn"] != second["drawn"]  # as of two processes that were started
    assert first["torch"] != second["torch"]
    assert first["open"] == second["open"]
    assert state.state["seen"] == {"count": 1}  # what outlives a message goes by Flower's context
    assert gone(int(str(first["pid"])))


DUMPABLE = """
import ctypes
seen = []
os.register_at_fork(after_in_child=lambda: seen.append(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)))
"""


def test_no_child_reaches_into_the_memory_that_the_next_one_begins_with(start) -> None:
    """By PR_GET_DUMPABLE: 0 closes a process's memory to others of its user. A child is born with its parent's."""
    warm = start("told['dumpable'] = str([*seen, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)])", DUMPABLE)
    assert ask(warm)[0]["dumpable"] == "[0, 1]"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('patient Smith')", ENDED),
        ("os.kill(os.getpid(), 9)", ENDED),
        ("os.kill(os.getppid(), 9); time.sleep(60)", ENDED),
        ("sys.exit(0)", ENDED),
        ("sys.exit(3)", ENDED),
        ("os._exit(0)", ENDED),
        ("os.write(3, b'garbage'); os._exit(0)", ENDED),
        ("told['long'] = 'x' * 200_000", ENDED),
        ("time.sleep(600)", TOO_LATE),
        ("os.write(3, b'x' * 1000); time.sleep(600)", TOO_LATE),
    ],
)
def test_a_child_that_fails_is_as_any_process_of_a_bundle_that_fails(start, tmp_path, body, says) -> None:
    note = f"Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
    warm = start(note + body)
    with pytest.raises(FederationError) as failed:
        ask(warm, seconds=5.0 if says == TOO_LATE else 60.0)
    assert failed.value.public == says
    assert "Smith" not in str(failed.value)
    assert gone(int((tmp_path / "pid").read_text()))


def test_the_process_is_over_with_a_child_that_failed_and_the_next_message_gets_one_of_its_own(start) -> None:
    warm = start("os.kill(os.getpid(), 11)")
    with pytest.raises(FederationError):
        ask(warm)
    assert gone(warm.process.pid)
    assert warm.gone()
    (warm.bundle.folder / "app.py").write_text(APP.format(body="pass", first=""))
    assert ask(warm)[0]["count"] == 1


def test_processes_that_a_child_starts_end_with_it(start, tmp_path) -> None:
    pid = tmp_path / "other"
    warm = start(f"import subprocess; Path({str(pid)!r}).write_text(str(subprocess.Popen(['/bin/sleep', '600'], stdout=2).pid))")
    assert ask(warm)[0]["count"] == 1
    assert gone(int(pid.read_text()))
    assert not warm.gone()


@pytest.mark.parametrize("how", ["the parent is killed", "it is ended"])
def test_what_a_child_has_started_ends_where_the_parent_goes_first(start, tmp_path, how) -> None:
    pid = tmp_path / "other"
    kill = "os.kill(os.getppid(), 9)" if how == "the parent is killed" else "pass"
    begin = "import subprocess; other = subprocess.Popen(['/bin/sleep', '600'])"  # with the answer's pipe in its hands
    warm = start(f"{begin}; Path({str(pid)!r}).write_text(str(other.pid)); {kill}; time.sleep(600)")
    with ThreadPoolExecutor() as pool:
        told = pool.submit(ask, warm)
        deadline = time.monotonic() + 60
        while not (pid.exists() and pid.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if how == "it is ended":
            warm.end()
        with pytest.raises(FederationError):
            told.result(timeout=30)
    assert gone(int(pid.read_text()))


def test_one_that_never_begins_is_doubted_and_costs_no_more_than_the_messages_own_time(start, monkeypatch) -> None:
    monkeypatch.setattr(warm_bundle, "START_SECONDS", 0.5)
    warm, doubts = start(first="if len(sys.argv) > 2: time.sleep(600)"), []
    given = {"seconds": 60.0, "most": 100_000, "warm": warm.bundle, "on_doubt": lambda: doubts.append(1)}
    content, _ = run_bundle(*request(), warm.bundle.folder, **given)
    assert dict(content["told"])["count"] == 1  # by a process that was started for it
    assert doubts == [1]
    monkeypatch.setattr(warm_bundle, "START_SECONDS", 600.0)
    began = time.monotonic()
    with pytest.raises(FederationError) as late:
        run_bundle(*request(), warm.bundle.folder, **given | {"seconds": 0.4})
    assert late.value.public == TOO_LATE
    assert time.monotonic() - began < 30  # not the import's patience and then all the time once more


@pytest.mark.parametrize(
    "first", ["threading.Thread(target=time.sleep, args=(600,)).start()", "raise ImportError('no')", "gpu = open(GPU)"]
)
def test_a_bundle_that_cannot_be_kept_warm_gets_a_process_for_each_message(start, first) -> None:
    gpu = "GPU = '/dev/null'; sys.modules['__main__'].GPU_FILES = (GPU,)"  # stands for a driver's file
    warm = start(first=f"if len(sys.argv) > 2: {gpu}; {first}")  # as it is started to be kept
    assert ask(warm)[0]["count"] == 1
    assert gone(warm.process.pid)


PARENT = """
import os, sys, time
from pathlib import Path
from client.gate.warm_bundle import WarmProcess
warm = WarmProcess.start(Path(sys.argv[1]), ())
gate = os.fork()
if not gate:
    warm.bundle.answer(sys.stdin.buffer.read(), seconds=600.0, most=1000)
    os._exit(0)
print(warm.process.pid, gate, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("who", ["parent", "gate"])
def test_a_child_ends_with_its_gate_and_all_with_their_parent(start, tmp_path, who) -> None:
    note = tmp_path / "pid"
    folder = start(f"Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(600)").bundle.folder
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert parent.stdin is not None and parent.stdout is not None  # noqa: PT018
        parent.stdin.write(request_bytes(*request()))
        parent.stdin.close()
        warm, gate = map(int, parent.stdout.readline().split())
        deadline = time.monotonic() + 60
        while not (note.exists() and note.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(parent.pid if who == "parent" else gate, signal.SIGKILL)
        if who == "parent":  # the gate sees that by itself (`client.gate.parent`)
            assert gone(warm)
            os.kill(gate, signal.SIGKILL)
        assert gone(int(note.read_text()))
        assert gone(warm)  # a message that failed is a doubt, too
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.parametrize("change", ["nothing", "policy", "approval", "withdrawal", "bundle", "new file", "other", "packages"])
def test_where_anything_has_changed_the_process_is_not_asked(start, tmp_path, monkeypatch, change) -> None:
    warm = start()
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder = warm.bundle.folder
    if change == "policy":
        (tmp_path / "site.toml").write_text("[policy]\n")
    elif change == "approval":
        (tmp_path / "bundles.txt").write_text("a" * 64)
    elif change == "withdrawal":
        (tmp_path / "site.toml").unlink()
    elif change == "bundle":
        (folder / "app.py").write_text((folder / "app.py").read_text())
    elif change == "new file":
        (folder / "data.txt").write_text("what an earlier message has found")
    elif change == "other":
        folder = tmp_path / "another"
    elif change == "packages":
        monkeypatch.setattr(warm_bundle, "packages_stamp", lambda: "another version")
    with ours, its:
        kept = KeptProcess(policy(tmp_path), warm.bundle, ours)
        if change == "nothing":
            assert kept.for_bundle(folder) is warm.bundle
            return
        with ThreadPoolExecutor() as pool:
            found = pool.submit(kept.for_bundle, folder)
            note, files, *_ = socket.recv_fds(its, 1000, 1)
            assert json.loads(note) == {"warm": str(folder)}  # another one
            os.close(files[0])  # there can be none
            assert found.result() is None
