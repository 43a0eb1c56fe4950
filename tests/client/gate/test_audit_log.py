"""Real files: the chain notices damage, a crash's torn line is no damage, and what cannot be written is said."""

import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.gate.audit_log import record, verify
from common.errors import AuditLogError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def log(tmp_path) -> Path:
    path = tmp_path / "state" / "audit.jsonl"
    for number in range(5):
        record(path, "in" if number % 2 else "out", round=number, note="Zürich\n\u2028")
    return path


def test_a_sound_log_is_summed_up(log) -> None:
    head = record(log, "refused", rule="hours")
    found = verify(log)
    assert (found.lines, found.events, found.torn) == (6, {"out": 3, "in": 2, "refused": 1}, 0)
    assert found.head == head == json.loads(log.read_text().splitlines()[-1])["hash"]
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("line", [1, 3, 4])
@pytest.mark.parametrize("how", ["changed", "gone", "swapped", "cut"])
def test_damage_is_noticed(log, line, how) -> None:
    lines = log.read_text().splitlines(keepends=True)
    if how == "changed":
        lines[line] = lines[line].replace('"round"', '"r0und"')
    elif how == "gone":
        del lines[line - 1]
    elif how == "swapped":
        lines[line], lines[line - 1] = lines[line - 1], lines[line]
    else:
        lines[line] = lines[line][:20] + "\n"
    log.write_text("".join(lines))
    with pytest.raises(AuditLogError, match="not as it was written"):
        verify(log)


def test_a_line_that_a_crash_cut_short_gives_way_to_the_next(log) -> None:
    head = verify(log).head
    with log.open("ab") as file:
        file.write(b'{"event":"out","ti')
    assert (verify(log).torn, verify(log).head) == (18, head)
    record(log, "in")
    assert verify(log).lines == 6
    assert json.loads(log.read_text().splitlines()[-1])["cut"] == 18


def test_an_end_that_is_damaged_takes_no_more(log) -> None:
    with log.open("ab") as file:
        file.write(b"garbage\n")
    with pytest.raises(AuditLogError, match="last line is damaged"):
        record(log, "in")


def test_writers_side_by_side_keep_one_chain(log) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: record(log, "in", round=n), range(40)))
    assert verify(log).lines == 45


def test_a_full_disk_is_said_and_leaves_the_log_sound(log) -> None:
    """RLIMIT_FSIZE stands for the full disk: the kernel refuses the bytes beyond it."""
    before = log.read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path; from client.gate.audit_log import record; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 40}, resource.RLIM_INFINITY)); "
        "record(Path(sys.argv[1]), 'out', names=['x'] * 100)"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(log)], env=environment, capture_output=True, text=True, check=False)
    assert "Nothing left the site" in done.stderr
    assert log.read_bytes() == before


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_sound_log_or_an_error_of_ours(tmp_path_factory, content) -> None:
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    path.write_bytes(content)
    for work in (verify, lambda p: record(p, "in")):
        with suppress(AuditLogError):
            work(path)
