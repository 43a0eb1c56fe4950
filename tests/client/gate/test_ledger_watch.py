"""A ledger that was deleted, cut or put back is noticed, and opens again by a person's decision alone, kept in the log."""

import json
from pathlib import Path

import pytest

from client.cli.main import main
from client.gate.audit_log import LOG_NAME, record, verify
from client.gate.ledger_watch import known_head, note_grown, require_known
from client.privacy.ledger import Ledger, alone, append, migrate, read_ledger, salt_path
from common.errors import PrivacyError
from common.hash_chain import START, link
from common.privacy.charge import Charge

CHEAP = Charge(4.0, 0.1, 5)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "site.toml").write_text("[privacy]\nepsilon = 8.0\n")
    (tmp_path / "state").mkdir()
    return tmp_path


def charged(home: Path, run: str = "run") -> Ledger:
    path = home / "privacy-ledger.jsonl"
    book = read_ledger(path)
    book = append(path, book, CHEAP, (book.mark("id:a"),), run)
    note_grown(home / "state" / LOG_NAME, book)
    return book


def refused(home: Path) -> str:
    path = home / "privacy-ledger.jsonl"
    with pytest.raises(PrivacyError) as refusal:
        require_known(home / "state" / LOG_NAME, read_ledger(path), path)
    return str(refusal.value)


def test_a_ledger_that_only_grows_is_fine_also_ahead_of_the_log(home: Path) -> None:
    path, log = home / "privacy-ledger.jsonl", home / "state" / LOG_NAME
    require_known(log, read_ledger(path), path)  # nothing was ever charged
    charged(home)
    record(log, "out", reason='"event":"ledger"')
    book = append(path, read_ledger(path), CHEAP, (frozenset({"x"}),), "a crash before the log was written")
    require_known(log, book, path)
    note_grown(log, book)
    assert known_head(log) == book.head


@pytest.mark.parametrize("what", ["deleted", "cut", "put back", "begun anew"])
def test_a_ledger_that_forgot_charges_closes_the_site_until_a_person_decides(home: Path, what: str) -> None:
    path, log = home / "privacy-ledger.jsonl", home / "state" / LOG_NAME
    charged(home)
    backup = path.read_bytes()
    newest = charged(home, "later")
    whole = path.read_bytes()
    if what == "deleted":
        path.unlink()
    elif what == "cut":
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    else:
        path.write_bytes(backup)
    if what == "begun anew":
        path.unlink()
        append(path, read_ledger(path), CHEAP, (frozenset({"x"}),), "run")
    said = refused(home)
    assert newest.head[:12] in said
    assert ("is not there" if what == "deleted" else "lacks charges") in said
    note_grown(log, read_ledger(path))  # what the gate does after every message
    refused(home)

    if what == "put back":
        path.write_bytes(whole)  # the newest was found after all
        require_known(log, read_ledger(path), path)
        return
    assert main(["ledger", "accept", str(home), "--reason", "disk lost, Dr A. decides"]) == 0
    require_known(log, read_ledger(path), path)
    verify(log)
    last = json.loads(log.read_text().splitlines()[-1])
    assert (last["event"], last["what"], last["reason"]) == ("ledger", "accepted by a person", "disk lost, Dr A. decides")
    charged(home)
    require_known(log, read_ledger(path), path)


def test_nothing_is_accepted_where_nothing_is_missing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    charged(home)
    before = (home / "state" / LOG_NAME).read_bytes()
    assert main(["ledger", "accept", str(home), "--reason", "to be safe"]) == 2
    assert "lacks nothing" in " ".join(capsys.readouterr().err.split())
    assert main(["ledger", "accept", str(home), "--reason", " "]) == 2
    assert (home / "state" / LOG_NAME).read_bytes() == before


def test_the_salt_of_an_older_ledger_moves_to_the_keys_and_its_patients_stay_known(tmp_path: Path) -> None:
    path, salt = tmp_path / "privacy-ledger.jsonl", "00112233445566778899aabbccddeeff"
    old = Ledger(salt, salted=True)
    marks = old.mark("id:a", "volume:1")
    lines, head = [], START
    for content in (
        {"salt": salt, "version": 1},
        {"cohort": "c", "patients": [sorted(marks)]},
        {"charge": {"noise_multiplier": 4.0, "sample_rate": 0.1, "steps": 5}, "charged": "c", "run": "r", "time": "t"},
    ):
        line, head = link(head, content)
        lines.append(line)
    path.write_text("".join(line + "\n" for line in lines))
    before = read_ledger(path)
    assert before.salted
    assert before.histories((before.mark("id:a"),)) == {(CHEAP,): 1}
    with alone(path):
        assert migrate(path) == (before.head, read_ledger(path).head)
        assert migrate(path) is None
    after = read_ledger(path)
    assert salt not in path.read_text()
    assert salt_path(path).read_text().strip() == salt
    assert salt_path(path).stat().st_mode & 0o077 == 0
    assert after.entries == before.entries
    assert after.histories((after.mark("id:z", "volume:1"),)) == {(CHEAP,): 1}


def test_without_its_salt_a_ledger_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "privacy-ledger.jsonl"
    book = append(path, read_ledger(path), CHEAP, (frozenset({"x"}),), "run")
    kept = salt_path(path).read_text()
    salt_path(path).write_text("0" * 32)
    with pytest.raises(PrivacyError, match="is not that of the ledger"):
        read_ledger(path)
    salt_path(path).unlink()
    with pytest.raises(PrivacyError, match="is missing"):
        read_ledger(path)
    salt_path(path).write_text(kept)
    assert read_ledger(path).head == book.head


def test_guessing_ids_from_a_copied_ledger_alone_finds_nobody(tmp_path: Path) -> None:
    """At 2a60dec the salt was the first line: whoever had the file could try all ids."""
    path = tmp_path / "privacy-ledger.jsonl"
    book = read_ledger(path)
    append(path, book, CHEAP, (book.mark("id:sub-0042"),), "run")
    [[marks]] = [entry.cohort for entry in read_ledger(path).entries]
    words = {str(word) for line in path.read_text().splitlines() for word in json.loads(line).values()}
    assert marks == Ledger(book.salt).mark("id:sub-0042")
    assert not any(marks & Ledger(word).mark(f"id:sub-{n:04d}") for word in words for n in range(100))
