"""What became of every input file: a table in the site's home, for it names files and patients."""

import csv
import io
from pathlib import Path

from common.files import write_secret

COLUMNS = ("file", "series", "patient", "outcome", "why")


class OutcomeLog:
    """Rows by file; the last word on a file counts. Written whole after each patient, so that an interruption loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, tuple[str, ...]] = {}

    def add(self, file: str, outcome: str, why: str, *, series: str = "", patient: str = "") -> None:
        """Say what became of a file: `used` or `left out`, as what or because of what."""
        self._rows[file] = (file, series, patient, outcome, why)

    def write(self) -> None:
        """Replace the table on the disk."""
        text = io.StringIO()
        table = csv.writer(text, delimiter="\t", lineterminator="\n")
        table.writerows([COLUMNS, *sorted(self._rows.values())])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_secret(self.path, text.getvalue().encode(), replace=True)

    def count(self, outcome: str) -> int:
        """Files that ended so."""
        return sum(row[3] == outcome for row in self._rows.values())
