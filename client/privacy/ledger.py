"""The hospital's privacy ledger: every private step that its patients' data were ever used for, kept at the site.

One JSON object a line, each with the hash of the one before it: damage, and a line that is changed, put elsewhere or missing in
the middle, is noticed. Lines missing at the end are not, nor is a chain forged whole: the ledger is the hospital's own.
The file is replaced whole (write, fsync, rename) under a lock, so after any crash it holds all charges that were acknowledged.
A charge belongs to patients, whatever run, model or folder they come in: each is known by salted hashes of their id and of their
volumes, and a patient who shares one of them is the same patient.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from client.hash_chain import START, follow, link
from common.errors import PrivacyError
from common.files import locked, write_atomic
from common.privacy.charge import Charge

Marks = frozenset[str]


@dataclass(frozen=True)
class Entry:
    """One charge.

    Attributes:
        cohort: the marks of each patient whose data it is about.
        run: what the coordinator calls the run.
        time: ISO 8601, UTC; for people.
    """

    charge: Charge
    cohort: tuple[Marks, ...]
    run: str
    time: str


@dataclass(frozen=True)
class Ledger:
    """The content of a ledger file, read and verified."""

    salt: str
    entries: tuple[Entry, ...] = ()
    head: str = START  # hash of the last line
    lines: tuple[str, ...] = field(default=(), repr=False)

    def histories(self, cohort: tuple[Marks, ...]) -> dict[tuple[Charge, ...], int]:
        """Every different history among these patients, and how many of them have it."""
        members = [frozenset().union(*entry.cohort) for entry in self.entries]
        found: dict[tuple[Charge, ...], int] = {}
        for marks in cohort:
            history = tuple(e.charge for e, known in zip(self.entries, members, strict=True) if not marks.isdisjoint(known))
            found[history] = found.get(history, 0) + 1
        return found

    def mark(self, *facts: str) -> Marks:
        """A patient's marks: salted hashes, so that the ledger by itself discloses no id."""
        return frozenset(hashlib.sha256(f"{self.salt}/{fact}".encode()).hexdigest()[:32] for fact in facts)


def read_ledger(path: Path) -> Ledger:
    """Read and verify a ledger; a new one, with a fresh salt, where there is none yet.

    Raises:
        PrivacyError: it cannot be read, or is not as it was written: nothing may be spent on its word.
    """
    try:
        text = path.read_bytes().decode("utf-8")  # as bytes: read as text, a carriage return passes for a newline
    except FileNotFoundError:
        return Ledger(os.urandom(16).hex())
    except (OSError, UnicodeDecodeError) as error:
        raise PrivacyError(f"Privacy ledger {path}: cannot be read ({error}). Restore it from a backup.") from error
    ledger = Ledger("")
    lines = text.split("\n")[:-1]
    cohorts: dict[str, tuple[Marks, ...]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            ledger = _follow(ledger, line, cohorts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PrivacyError(
                f"Privacy ledger {path}, line {number}: not as it was written ({error}). Restore it from a backup; "
                "training with privacy stays closed, since what was spent is not known."
            ) from error
    if not lines or not text.endswith("\n"):
        raise PrivacyError(f"Privacy ledger {path}: its end is missing. Restore it from a backup.")
    return ledger


def alone(path: Path) -> IO[bytes]:
    """Hold the ledger alone, until what is returned is closed."""
    try:
        return locked(path.with_name(f".{path.name}.lock"))
    except OSError as error:
        raise PrivacyError(f"Privacy ledger {path}: its folder cannot be written to ({error}).") from error


def append(path: Path, ledger: Ledger, charge: Charge, cohort: tuple[Marks, ...], run: str) -> Ledger:
    """Write one more charge; when this returns it is on the disk. Call it while `alone`.

    Raises:
        PrivacyError: the file cannot be written: nothing may then be trained.
    """
    lines = list(ledger.lines)
    head = ledger.head
    if not lines:
        head = _add(lines, head, {"salt": ledger.salt, "version": 1})
    patients = sorted(sorted(marks) for marks in cohort)
    name = hashlib.sha256(json.dumps(patients).encode()).hexdigest()
    if not any(f'"cohort":"{name}","patients":' in line for line in lines):
        head = _add(lines, head, {"cohort": name, "patients": patients})
    when = datetime.now(UTC).isoformat(timespec="seconds")
    spent = {"noise_multiplier": charge.noise_multiplier, "sample_rate": charge.sample_rate, "steps": charge.steps}
    head = _add(lines, head, {"charge": spent, "charged": name, "run": run, "time": when})
    try:
        write_atomic(path, "".join(line + "\n" for line in lines).encode())
    except OSError as error:
        raise PrivacyError(f"Privacy ledger {path}: cannot be written ({error}). Nothing was trained.") from error
    entry = Entry(charge, tuple(map(frozenset, patients)), run, when)
    return Ledger(ledger.salt, (*ledger.entries, entry), head, tuple(lines))


def _add(lines: list[str], head: str, content: dict[str, Any]) -> str:
    """Chain one line on; returns its hash."""
    line, head = link(head, content)
    lines.append(line)
    return head


def _follow(ledger: Ledger, line: str, cohorts: dict[str, tuple[Marks, ...]]) -> Ledger:
    """Check one line against the chain and take it in."""
    content, head = follow(ledger.head, line)
    salt, entries = ledger.salt, ledger.entries
    if "salt" in content:
        salt = str(content["salt"])
    elif "patients" in content:
        cohorts[content["cohort"]] = tuple(frozenset(map(str, marks)) for marks in content["patients"])
    else:
        charge = Charge(**content["charge"])
        entries = (*entries, Entry(charge, cohorts[content["charged"]], str(content["run"]), str(content["time"])))
    return Ledger(salt, entries, head, (*ledger.lines, line))
