"""Whose row is whose: names in a table against names of folders, rows of several sessions, and rows that contradict each other.

Names are compared as they are; then without `sub-` and in lower case; then without zeros before numbers (spreadsheets drop them);
then without hyphens and other signs (BIDS allows none in a folder's name). A spelling counts only where it fits one name on
either side, so that nobody gets another's row; what was matched is said with both spellings.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from common.data.covariates import NO_WORD
from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.sessions import bare
from common.data.gate.tables import KEY, SESSION, Table

Cells = Mapping[str, str]
MATCHED = Kind("rows-matched", Level.WARNING, "patients found in the table by another spelling; a note where only sub- differs")
KINDS = (MATCHED,)
SHOWN = 3  # names spelled out in one finding


def _plain(name: str) -> str:
    return re.sub(r"^sub-", "", name.strip().lower())


def _unpadded(name: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"^(\d+)\.0$", r"\1", _plain(name)))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", _plain(name))


SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "without sub-": _plain,
    "without zeros before numbers": _unpadded,
    "without signs": _letters,
}


@dataclass(frozen=True)
class Matched:
    """Rows by patient.

    Attributes:
        rows: patient's folder -> their rows.
        lost: names in the table that fit no folder.
        findings: how names were matched.
    """

    rows: Mapping[str, Sequence[Cells]]
    lost: tuple[str, ...]
    findings: tuple[Finding, ...]


def match_rows(table: Table, patients: Iterable[str]) -> Matched:
    """Find each patient's rows."""
    by_name: dict[str, list[Cells]] = {}
    for _, cells in table.rows:
        by_name.setdefault(cells.get(KEY, ""), []).append(cells)
    folders = sorted(set(patients))
    owner = {name: name for name in by_name if name in set(folders)}
    findings = []
    for how, spelling in SPELLINGS.items():
        found = _pairs(
            [n for n in by_name if n not in owner], [f for f in folders if f not in owner.values()], by_name, folders, spelling
        )
        owner |= found
        if found:
            name, folder = next(iter(found.items()))
            findings.append(
                MATCHED.finding(
                    f"{len(found)} patients are found by their names {how}: {name!r} in the table is the folder {folder!r}",
                    "the folder's name",
                    "Make sure that these are the same patients; best write the folder's name into the table.",
                    file=table.name,
                    level=Level.NOTE if spelling is _plain else Level.WARNING,
                )
            )
    lost = tuple(sorted(name for name in by_name if name not in owner))
    return Matched({folder: by_name[name] for name, folder in owner.items()}, lost, tuple(findings))


def _pairs(
    names: Sequence[str], folders: Sequence[str], every: Iterable[str], all_folders: Iterable[str], spelling: Callable[[str], str]
) -> dict[str, str]:
    """Names to folders that are spelled alike, where each spelling is of one name and one folder among all."""
    once = _once(every, spelling)
    there = _once(all_folders, spelling)
    left, open_ = set(names), set(folders)
    return {once[text]: there[text] for text in sorted(once.keys() & there.keys()) if once[text] in left and there[text] in open_}


def _once(names: Iterable[str], spelling: Callable[[str], str]) -> dict[str, str]:
    """Spelling -> the name, of those spellings that one name alone has."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(spelling(name), []).append(name)
    return {text: one[0] for text, one in found.items() if text and len(one) == 1}


def one_row(
    rows: Sequence[Cells], session: str, of_session: Cells, columns: Sequence[str]
) -> tuple[dict[str, str], list[str], bool]:
    """One patient's cells.

    Args:
        rows: theirs.
        session: label of the one that is used.
        of_session: that session's row of the patient's sessions.tsv, which goes before.
        columns: that are used; others may differ between rows.

    Returns:
        The cells; columns in which rows say different things; and whether the rows say the same several times over.
    """
    own = [row for row in rows if bare(row.get(SESSION, "")) == bare(session)] if session else []
    meant = own or list(rows)
    cells = dict(meant[0]) if meant else {}
    differing = []
    for column in columns:
        words = list(dict.fromkeys(row[column] for row in meant if not is_missing(row.get(column, ""))))
        if len(words) > 1:
            differing.append(f"{column} ({', '.join(words[:SHOWN])})")
        cells[column] = words[0] if words else cells.get(column, "")
    cells |= {column: word for column, word in of_session.items() if not is_missing(word)}
    return cells, differing, len(meant) > 1


def is_missing(word: str) -> bool:
    """Whether a cell says nothing."""
    return word.lower() in NO_WORD
