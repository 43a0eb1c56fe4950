"""Tables that the hospital brings along: labels by patient, masks by patient."""

import csv
from pathlib import Path

from common.errors import DataError

Row = dict[str, str]


def read_table(path: Path, key: str) -> dict[str, Row]:
    """Rows by the hospital's patient number; commas, semicolons or tabs.

    Args:
        path: UTF-8 text with a header.
        key: the column of the patient's number.

    Raises:
        DataError: unreadable, no such column, a patient twice, or a row of the wrong length; names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max("\t;,", key=first.count))
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table in UTF-8 ({error}).") from error
    header = rows[0][1] if rows else []
    if key not in header:
        raise DataError(f"{path}: expected a column {key}; got {', '.join(header) or 'an empty file'}.")
    table: dict[str, Row] = {}
    for number, cells in rows[1:]:
        if len(cells) != len(header):
            raise DataError(f"{path}, line {number}: expected {len(header)} cells, got {len(cells)}.")
        row = dict(zip(header, cells, strict=True))
        if row[key] in table:
            raise DataError(f"{path}, line {number}: patient {row[key]} occurs twice. Keep one row.")
        table[row[key]] = row
    return table
