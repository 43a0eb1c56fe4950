"""What became of every input file: a table in the site's home, for it names files and patients."""

import csv
import io
from pathlib import Path

from common.errors import DataError
from common.files import remove_unfinished, write_secret

USED, LEFT_OUT, THERE, ABSENT = "used", "left out", "imported earlier", "absent"
UNDER_WAY = "under way"  # to be used, of a patient who is not in the site folder yet
COLUMNS = ("file", "series", "patient", "outcome", "why")


class OutcomeLog:
    """Rows by file; the last word on a file counts. Written whole with each patient, so that an interruption loses none.

    Args:
        path: of the table, which nobody else writes; what an earlier run said of a patient stays where `keep` asks for it.

    Raises:
        DataError: there is something else at `path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, tuple[str, ...]] = {}
        remove_unfinished(path)
        self._earlier = _read(path)

    def add(self, file: str, outcome: str, why: str, *, series: str = "", patient: str = "") -> None:
        """Say what became of a file: `used`, `under way`, `left out` or `absent`, as what or because of what."""
        self._rows[file] = (file, series, patient, outcome, why)

    def keep(self, patient: str) -> bool:
        """Let stand what an earlier run said of the files of a patient who is there; what was under way was used then.

        Returns:
            False where it used none of them, or its table is lost.
        """
        rows = [_settled(row) for row in self._earlier if row[2] == patient]
        if not any(row[3] == USED for row in rows):
            return False
        self._rows.update((row[0], row) for row in rows)
        return True

    def in_place(self, patient: str) -> None:
        """The patient is in the site folder: what was under way of them is used."""
        self._rows.update((file, _settled(row)) for file, row in self._rows.items() if row[2] == patient)

    def write(self) -> None:
        """Replace the table on the disk."""
        text = io.StringIO()
        table = csv.writer(text, delimiter="\t", lineterminator="\n")
        table.writerows([COLUMNS, *sorted(self._rows.values())])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_secret(self.path, text.getvalue().encode(), replace=True)

    def knows(self) -> set[str]:
        """The files that there is a word on."""
        return set(self._rows)

    def count(self, outcome: str) -> int:
        """Files that ended so."""
        return sum(row[3] == outcome for row in self._rows.values())


def _settled(row: tuple[str, ...]) -> tuple[str, ...]:
    return (*row[:3], USED if row[3] == UNDER_WAY else row[3], row[4])


def _read(path: Path) -> list[tuple[str, ...]]:
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = [tuple(row) for row in csv.reader(file, delimiter="\t")] or [()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}). Move it away to have a new one made.") from error
    if header != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise DataError(f"{path}: expected the columns {', '.join(COLUMNS)}. Move it away to have a new one made.")
    return rows
