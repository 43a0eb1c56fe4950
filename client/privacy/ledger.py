"""The hospital's privacy ledger: every private step that its patients' data were ever used for, kept at the site.

One JSON object a line, each with the hash of the one before it: damage, and a line that is changed, put elsewhere or missing in
the middle, is noticed. Lines missing at the end the audit log knows of
(`client.gate.ledger_watch`); a chain forged whole is not noticed: the ledger is the hospital's own.
The file is replaced whole (write, fsync, rename) under a lock, so after any crash it holds all charges that were acknowledged.
A charge belongs to patients, whatever run, model or folder they come in: each is known by salted hashes of their id and of what
is in their volumes (`client.privacy.marks`), and who shares one of them, with a patient or with anybody linked to that patient,
is the same person (`client.privacy.people`). The salt lies among the site's keys: a copy of the ledger alone tells no id.
"""

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from client.privacy.people import Marks, People
from common.errors import PrivacyError
from common.files import locked, write_atomic, write_secret
from common.hash_chain import START, follow, link
from common.privacy.charge import Charge

NO_BUDGET = (
    "site.toml has no [privacy] epsilon: a private run protects nobody then, since the next request may be a plain one. Set it."
)
KEYS = "keys"  # folder of the salt, where nothing else is said


@dataclass(frozen=True)
class Seen:
    """The fingerprints of images that were kept when a charge was written (`client.privacy.likeness`).

    Attributes:
        count: of patients.
        sha256: of their marks.
    """

    count: int = 0
    sha256: str = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class Entry:
    """One charge.

    Attributes:
        cohort: the marks of each patient whose data it is about.
        run: what the coordinator calls the run.
        time: ISO 8601, UTC; for people.
        seen: whose images were kept then; None in ledgers of earlier versions.
    """

    charge: Charge
    cohort: tuple[Marks, ...]
    run: str
    time: str
    seen: Seen | None = None


@dataclass(frozen=True)
class Ledger:
    """The content of a ledger file, read and verified."""

    salt: str
    entries: tuple[Entry, ...] = ()
    head: str = START  # hash of the last line
    lines: tuple[str, ...] = field(default=(), repr=False)
    salted: bool = False  # the salt stands in the file itself, as in ledgers of version 1

    def histories(self, cohort: tuple[Marks, ...], more: tuple[Charge, ...] = ()) -> dict[tuple[Charge, ...], int]:
        """Every different history among these patients with `more` on top, and how many of them have it.

        A person who was, or is, several patients of one charge moved each step several times: their charge is the group's.
        """
        cohorts = dict.fromkeys(entry.cohort for entry in self.entries)
        people = self.people(cohort)
        times = {known: Counter(map(people.person, known)) for known in cohorts}
        found: dict[tuple[Charge, ...], int] = {}
        for person, cases in Counter(map(people.person, cohort)).items():
            past = tuple(e.charge.of_group(n) for e in self.entries if (n := times[e.cohort][person]))
            history = past + tuple(charge.of_group(cases) for charge in more)
            found[history] = found.get(history, 0) + cases
        return found

    def people(self, cohort: tuple[Marks, ...]) -> People:
        """The persons among all patients ever charged, and these."""
        seen = dict.fromkeys(entry.cohort for entry in self.entries)
        return People([*(marks for known in seen for marks in known), *cohort])

    @property
    def seen(self) -> Seen:
        """Whose images were kept when the last charge that says so was written."""
        return next((entry.seen for entry in reversed(self.entries) if entry.seen), Seen())

    def hashes(self) -> tuple[str, ...]:
        """Of its lines, in order."""
        return tuple(str(json.loads(line)["hash"]) for line in self.lines)

    def mark(self, *facts: str) -> Marks:
        """A patient's marks: salted hashes, so that the ledger by itself discloses no id."""
        return frozenset(hashlib.sha256(f"{self.salt}/{fact}".encode()).hexdigest()[:32] for fact in facts)


def read_ledger(path: Path, keys: Path | None = None) -> Ledger:
    """Read and verify a ledger; a new one, with a fresh salt, where there is none yet.

    Args:
        path: of the ledger.
        keys: folder of its salt; None: `keys` beside it.

    Raises:
        PrivacyError: it cannot be read, or is not as it was written, or its salt is not there: nothing may be spent on its word.
    """
    salt_file = salt_path(path, keys)
    try:
        text = path.read_bytes().decode("utf-8")  # as bytes: read as text, a carriage return passes for a newline
    except FileNotFoundError:
        return Ledger(_read_salt(salt_file) or os.urandom(16).hex())
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
    return ledger if ledger.salted else replace(ledger, salt=_require_salt(ledger.salt, salt_file, path))


def salt_path(path: Path, keys: Path | None = None) -> Path:
    """Where the salt of a ledger lies."""
    return (keys or path.parent / KEYS) / f"{path.stem}.salt"


def migrate(path: Path, keys: Path | None = None) -> tuple[str, str] | None:
    """Move the salt of an older ledger out of its first line, into the keys' folder. Call it while `alone`.

    Returns:
        The head before and after; None where nothing was to be done.

    Raises:
        PrivacyError: as `read_ledger`, or it cannot be written.
    """
    ledger = read_ledger(path, keys)
    if not ledger.salted:
        return None
    lines: list[str] = []
    head = _begin(lines, ledger, salt_path(path, keys))
    for line in ledger.lines[1:]:
        content = json.loads(line)
        del content["hash"]
        head = _add(lines, head, content)
    _write(path, lines)
    return ledger.head, head


def alone(path: Path) -> IO[bytes]:
    """Hold the ledger alone, until what is returned is closed."""
    try:
        return locked(path.with_name(f".{path.name}.lock"))
    except OSError as error:
        raise PrivacyError(f"Privacy ledger {path}: its folder cannot be written to ({error}).") from error


def append(
    path: Path,
    ledger: Ledger,
    charge: Charge,
    cohort: tuple[Marks, ...],
    run: str,
    keys: Path | None = None,
    seen: Seen | None = None,
) -> Ledger:
    """Write one more charge; when this returns it is on the disk. Call it while `alone`.

    Raises:
        PrivacyError: the file cannot be written: nothing may then be trained.
    """
    lines = list(ledger.lines)
    head = ledger.head
    if not lines:
        head = _begin(lines, ledger, salt_path(path, keys))
    patients = sorted(sorted(marks) for marks in cohort)
    name = hashlib.sha256(json.dumps(patients).encode()).hexdigest()
    if not any(f'"cohort":"{name}","patients":' in line for line in lines):
        head = _add(lines, head, {"cohort": name, "patients": patients})
    when = datetime.now(UTC).isoformat(timespec="seconds")
    spent = {"noise_multiplier": charge.noise_multiplier, "sample_rate": charge.sample_rate, "steps": charge.steps}
    images = {"images": asdict(seen)} if seen else {}
    head = _add(lines, head, {"charge": spent, "charged": name, "run": run, "time": when, **images})
    _write(path, lines)
    entry = Entry(charge, tuple(map(frozenset, patients)), run, when, seen)
    return replace(ledger, entries=(*ledger.entries, entry), head=head, lines=tuple(lines))


def _write(path: Path, lines: list[str]) -> None:
    try:
        write_atomic(path, "".join(line + "\n" for line in lines).encode())
    except OSError as error:
        raise PrivacyError(f"Privacy ledger {path}: cannot be written ({error}). Nothing was trained.") from error


def _begin(lines: list[str], ledger: Ledger, salt_file: Path) -> str:
    """The first line, and before it the salt, safe on the disk; returns the line's hash."""
    kept = _read_salt(salt_file)
    if kept and kept != ledger.salt:
        raise PrivacyError(
            f"Privacy ledger's salt {salt_file}: it is another ledger's. Move both of them away. Nothing was trained."
        )
    if not kept:
        try:
            salt_file.parent.mkdir(parents=True, exist_ok=True)
            write_secret(salt_file, f"{ledger.salt}\n".encode(), replace=True)
        except OSError as error:
            raise PrivacyError(f"Privacy ledger's salt {salt_file}: cannot be written ({error}). Nothing was trained.") from error
    return _add(lines, START, {"salted": _fingerprint(ledger.salt), "version": 2})


def _fingerprint(salt: str) -> str:
    """By which a ledger knows its own salt. The salt has 128 bits: nobody finds it by this."""
    return hashlib.sha256(f"salt {salt}".encode()).hexdigest()


def _read_salt(file: Path) -> str:
    """The salt, or "" where none is kept."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise PrivacyError(f"Privacy ledger's salt {file}: cannot be read ({error}). Restore it from a backup.") from error


def _require_salt(fingerprint: str, file: Path, path: Path) -> str:
    salt = _read_salt(file)
    if _fingerprint(salt) != fingerprint:
        state = "is not that of the ledger" if salt else "is missing"
        raise PrivacyError(
            f"Privacy ledger {path}: its salt {file} {state}. Restore it from a backup; training with privacy stays closed, "
            "since without it no patient would be known again."
        )
    return salt


def _add(lines: list[str], head: str, content: dict[str, Any]) -> str:
    """Chain one line on; returns its hash."""
    line, head = link(head, content)
    lines.append(line)
    return head


def _follow(ledger: Ledger, line: str, cohorts: dict[str, tuple[Marks, ...]]) -> Ledger:
    """Check one line against the chain and take it in."""
    content, head = follow(ledger.head, line)
    salt, salted, entries = ledger.salt, ledger.salted, ledger.entries
    if not ledger.lines:
        salt, salted = (str(content["salt"]), True) if "salt" in content else (str(content["salted"]), False)
    elif "patients" in content:
        cohorts[content["cohort"]] = tuple(frozenset(map(str, marks)) for marks in content["patients"])
    else:
        charge, seen = Charge(**content["charge"]), Seen(**content["images"]) if "images" in content else None
        entry = Entry(charge, cohorts[content["charged"]], str(content["run"]), str(content["time"]), seen)
        entries = (*entries, entry)
    return Ledger(salt, entries, head, (*ledger.lines, line), salted)
