"""Jobs side by side: whoever stops early leaves no process behind."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.config.run import config_from_table
from common.data.cache import open_site
from common.data.cases import read_site
from simulation.processes import as_they_end, side_by_side
from tests.common.data.gate.test_pictures import picture, saved

CONFIG = config_from_table({"data": {"modalities": ["image"], "slices": 1, "size": 32, "field_of_view": 100.0}})

ENDLESS = """
from pathlib import Path
from simulation.processes import side_by_side
if __name__ == "__main__":
    side_by_side(Path.read_bytes, [Path("quick"), Path("endless")], 2, lambda name: print(name, flush=True))
"""


@dataclass(frozen=True)
class Meeting:
    """A job that ends when `of` jobs run at once: each in a process of its own."""

    folder: Path
    name: str
    of: int


@dataclass(frozen=True)
class Patients:
    """A job that opens a site."""

    folder: Path
    cache: Path

    @property
    def name(self) -> str:
        return self.folder.name


def visible_at(meeting: Meeting) -> str | None:
    """The GPUs that a process sees, told when all have begun."""
    (meeting.folder / meeting.name).touch()
    while len(list(meeting.folder.iterdir())) < meeting.of:
        time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def said_of(patients: Patients) -> list[str]:
    """What a process logs when it opens a site."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("common.data.cache").addHandler(handler)
    open_site(read_site(patients.folder, CONFIG, simulated=True), CONFIG.data, patients.cache, workers=1)
    return lines


def test_what_was_said_of_a_patient_is_not_said_again_by_processes(tmp_path: Path) -> None:
    for site in "ab":
        for name in ("sub-1", "sub-2"):
            saved(tmp_path / site / name / "film.png", picture(48, 48, seed=1))
        (tmp_path / site / "sub-2" / "film.png").write_bytes(b"torn")
    (told,) = [line for line in said_of(Patients(tmp_path / "a", tmp_path / "cache")) if "sub-2" in line]
    assert "film.png" in told
    found = side_by_side(said_of, [Patients(tmp_path / site, tmp_path / "cache") for site in "ab"], 2)
    assert found["a"] == []
    assert [line for line in found["b"] if "sub-2" in line]  # which nobody has said yet


@pytest.mark.parametrize(
    ("gpus", "visible", "seen"),
    [
        (0, None, [None] * 3),
        (2, None, ["0", "0", "1"]),
        (2, "GPU-b,GPU-a", ["GPU-a", "GPU-b", "GPU-b"]),
        (4, None, ["0", "1", "2"]),
    ],
)
def test_processes_share_the_gpus_in_turn(tmp_path: Path, monkeypatch, gpus, visible, seen) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = side_by_side(visible_at, [Meeting(tmp_path, name, 3) for name in "abc"], 3)
    assert sorted(found.values(), key=str) == seen


@pytest.fixture
def jobs(tmp_path: Path) -> list[Path]:
    """Files to be read: one is there, the other never ends."""
    os.mkfifo(tmp_path / "endless")
    (tmp_path / "quick").write_bytes(b"quick")
    return [tmp_path / "endless", tmp_path / "quick"]


def test_results_come_as_they_end_and_the_rest_is_stopped(jobs: list[Path]) -> None:
    with closing(as_they_end(Path.read_bytes, jobs, 2)) as ended:
        assert next(ended) == (jobs[1], b"quick")
    assert multiprocessing.active_children() == []


def test_an_error_stops_the_rest(jobs: list[Path]) -> None:
    with pytest.raises(FileNotFoundError):
        side_by_side(Path.read_bytes, [jobs[0], jobs[0].with_name("absent")], 2)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"),
    [(signal.SIGINT, b"KeyboardInterrupt"), (signal.SIGTERM, b""), (signal.SIGKILL, b"")],
    ids=str,
)
def test_whoever_is_ended_leaves_no_process_behind(jobs: list[Path], how: signal.Signals, said: bytes) -> None:
    (jobs[0].parent / "script.py").write_text(ENDLESS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "script.py"]
    with subprocess.Popen(
        command, cwd=jobs[0].parent, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout.readline() == b"quick\n"
        if how == signal.SIGINT:
            os.killpg(run.pid, how)  # as a terminal does
        else:
            run.send_signal(how)
        assert said in run.stderr.read()
    end = time.monotonic() + 20
    while _alive(run.pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
