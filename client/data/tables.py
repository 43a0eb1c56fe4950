"""Tables that the hospital brings along: labels by patient, masks by patient."""

import csv
import io
from pathlib import Path

from common.data.gate.tables import table_text
from common.errors import DataError

Row = dict[str, str]


def read_table(path: Path, key: str) -> dict[str, Row]:
    """Rows by the hospital's patient number; commas, semicolons or tabs.

    Args:
        path: text with a header, UTF-8 or UTF-16.
        key: the column of the patient's number.

    Raises:
        DataError: unreadable, no such column, a patient twice, or a row of the wrong length; names the line.
    """
    try:
        text = table_text(path)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max("\t;,", key=text.partition("\n")[0].count))
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table ({error}).") from error
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
