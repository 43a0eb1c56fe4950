"""The ledger must never say less than what was spent, whatever happens to the process or the file."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.privacy.ledger import alone, append, read_ledger
from common.errors import PrivacyError
from common.privacy.charge import Charge

CHEAP = Charge(0.1, 0.5, 5)
ROOT = Path(__file__).resolve().parents[3]
CHARGE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from client.privacy import ledger
from common import files
from common.privacy.charge import Charge

path, trained, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
ours = {ledger.alone.__code__, files.locked.__code__, ledger.append.__code__, ledger._add.__code__,
        files.write_atomic.__code__, files.write_secret.__code__, files.sync_folder.__code__, ledger._begin.__code__,
        ledger._write.__code__}

def trace(frame, event, _):
    global left
    if frame.f_code not in ours:
        return None
    left -= event == "line"
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return trace

sys.settrace(trace)
with ledger.alone(path):
    book = ledger.read_ledger(path)
    ledger.append(path, book, Charge(1.0, 0.1, 5), (book.mark("id:a"), book.mark("id:b")), "run")
trained.touch()
"""


def write(path: Path, charges: int) -> None:
    book = read_ledger(path)
    for number in range(charges):
        cohort = (book.mark("id:a", "volume:1"), book.mark("id:b", f"volume:{number}"))
        book = append(path, book, Charge(1.0, 0.1, number + 1), cohort, f"run-{number}")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.jsonl"
    write(path, 3)
    book = read_ledger(path)
    assert [entry.charge for entry in book.entries] == [Charge(1.0, 0.1, n) for n in (1, 2, 3)]
    assert [entry.run for entry in book.entries] == ["run-0", "run-1", "run-2"]


def test_the_file_tells_no_patient(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append(path, read_ledger(path), CHEAP, (read_ledger(path).mark("id:Smith", "volume:abc"),), "run")
    assert "Smith" not in path.read_text()


def test_a_patient_is_known_by_his_id_or_his_volumes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    book = append(path, first := read_ledger(path), CHEAP, (first.mark("id:a", "volume:1", "volume:2"),), "run")
    same_id, same_volume, stranger = (
        book.mark(*facts) for facts in (("id:a", "volume:9"), ("id:z", "volume:2"), ("id:z", "volume:9"))
    )
    for known in (same_id, same_volume):
        assert book.histories((known,)) == {(CHEAP,): 1}
    assert book.histories((stranger,)) == {(): 1}
    assert book.histories((same_volume, stranger)) == {(CHEAP,): 2}  # z, who has volume 2, is a


def test_two_ledgers_do_not_share_their_salt(tmp_path: Path) -> None:
    one, two = read_ledger(tmp_path / "a"), read_ledger(tmp_path / "b")
    assert one.mark("id:a") != two.mark("id:a")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_changed_byte_goes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "ledger.jsonl"
    if not path.exists():
        write(path, 3)
        (tmp_path / "whole").write_bytes(path.read_bytes())
    whole = (tmp_path / "whole").read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != whole[at]))
    path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
    with pytest.raises(PrivacyError, match=str(path)):
        read_ledger(path)


@pytest.mark.parametrize("other", [b"\r", b" ", b"\t"])
def test_no_newline_that_became_another_space_goes_unnoticed(tmp_path: Path, other: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, 3)
    whole = path.read_bytes()
    for at in (at for at, byte in enumerate(whole) if byte == ord("\n")):
        path.write_bytes(whole[:at] + other + whole[at + 1 :])
        with pytest.raises(PrivacyError, match=str(path)):
            read_ledger(path)


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_a_line_taken_out_is_noticed(tmp_path: Path, gone: int) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, 3)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:gone] + lines[gone + 1 :]))
    with pytest.raises(PrivacyError, match="not as it was written"):
        read_ledger(path)


@pytest.mark.parametrize("text", ["", "\n", "{}\n", "[]\n", '{"hash": 1}\n', "nonsense", '{"hash":"', "\x00"])
def test_what_is_no_ledger_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(text)
    with pytest.raises(PrivacyError):
        read_ledger(path)


def test_a_ledger_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, 1)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(PrivacyError, match="Nothing was trained"):
        append(path, read_ledger(path), CHEAP, (), "run")
    assert path.read_bytes() == before


def test_charges_of_several_processes_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            for _ in range(5):
                with alone(path):
                    book = read_ledger(path)
                    append(path, book, CHEAP, (book.mark("id:a"),), "run")
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert len(read_ledger(path).entries) == 20


@pytest.mark.slow
def test_kill_9_at_every_step_of_a_charge(tmp_path: Path) -> None:
    """A child charges, then trains (leaves a mark); it is killed at its first line, its second line, and so on to the last."""
    path, trained, recorded, step, ended = tmp_path / "ledger.jsonl", tmp_path / "trained", 0, 0, False
    while not ended:
        step += 1
        trained.unlink(missing_ok=True)
        code = subprocess.run([sys.executable, "-c", CHARGE_AND_DIE, path, trained, str(step)], cwd=ROOT, check=False).returncode
        assert code in (0, -signal.SIGKILL)
        ended = code == 0
        now = len(read_ledger(path).entries) if path.exists() else 0
        assert now in (recorded, recorded + 1), f"killed at step {step}"
        assert now == recorded + 1 or not trained.exists(), f"killed at step {step}: trained, but not charged"
        recorded = now
    assert step > 30
    assert trained.exists()
    write(path, 1)
    assert read_ledger(path).entries[-1].run == "run-0"


def test_the_lines_are_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, 2)
    kinds = [sorted(json.loads(line)) for line in path.read_text().splitlines()]
    assert kinds[0] == ["hash", "salted", "version"]
    assert kinds[2] == ["charge", "charged", "hash", "run", "time"]
