"""Tables as hospitals have them: BIDS' tab-separated text, and what Excel and R make of it. What it cannot be read as is said.

Read: quotes (R, Excel), R's column of row numbers without a heading, line ends of every kind, a byte order mark, UTF-16 (Excel's
"Unicode text"), spaces around cells. Named, not read: workbooks, commas and semicolons in the place of tabs, other encodings.
"""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.data.headings import hint
from common.errors import DataError

KEY = "participant_id"
SESSION = "session_id"
WORKBOOKS = {b"PK\x03\x04": "an Excel workbook (.xlsx) or another ZIP file", b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)"}
SAVE = "Save it as tab-separated text (in Excel: Save As, Text, tab delimited)"
DELIMITERS = {",": "commas", ";": "semicolons", "|": "vertical bars", " ": "spaces"}


@dataclass(frozen=True)
class Table:
    """A table's rows.

    Attributes:
        name: of the file.
        header: the columns' names.
        rows: number of the line, and the cells by column.
        renamed: columns that are found by another spelling than the one that was asked for: that one -> the file's.
    """

    name: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[int, Mapping[str, str]], ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


def read_table(file: Path, key: str = KEY, columns: tuple[str, ...] = ()) -> Table:
    """Read a table.

    Args:
        file: of text.
        key: column that it must have.
        columns: further ones that are wanted: where a name is there in other case alone, the column is called as it is here.

    Raises:
        DataError: what it is instead, or which line is wrong.
    """
    text = table_text(file)
    numbered = _split(file, text)
    header = _stripped([cell.strip() for cell in numbered[0][1]]) if numbered else []
    rows = _aligned(numbered[1:], len(header), quoted=text.lstrip().startswith('"'))
    renamed = {}
    for wanted in (key, *columns):
        like = [name for name in header if name.lower().replace(" ", "_") == wanted.lower()]
        if wanted not in header and len(like) == 1:
            renamed[wanted] = like[0]
            header[header.index(like[0])] = wanted
    if key not in header or len(set(header)) != len(header):
        raise DataError(f"{file.name}: {_instead(header, key)}")
    for line, cells in rows:
        if len(cells) > len(header):
            raise DataError(f"{file.name}, line {line}: expected {len(header)} cells between tabs, got {len(cells)}.")
    named = tuple((line, dict(zip(header, (cell.strip() for cell in cells), strict=False))) for line, cells in rows)
    return Table(file.name, tuple(header), named, renamed)


def _stripped(cells: list[str], length: int = 0) -> list[str]:
    """Without empty cells at the end, but for the first `length`."""
    while len(cells) > length and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _aligned(rows: list[tuple[int, list[str]]], length: int, *, quoted: bool) -> list[tuple[int, list[str]]]:
    """Without R's row names, which have no heading, and without what tabs at the ends of lines add."""
    numbers = [cells[0].strip() for _, cells in rows]
    named = quoted or numbers == [str(number) for number in range(1, len(rows) + 1)]
    longer = all(len(cells) == length + 1 for _, cells in rows) and any(cells[-1].strip() for _, cells in rows)
    return [(line, cells[1:] if named and longer else _stripped(cells, length)) for line, cells in rows]


def table_text(file: Path) -> str:
    """The file's characters: UTF-8, or UTF-16 as Excel's "Unicode text" is.

    Raises:
        DataError: it is a workbook, or in another encoding.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file.name}: cannot be read ({error.strerror}).") from error
    kind = next((what for start, what in WORKBOOKS.items() if content.startswith(start)), None)
    if kind:
        raise DataError(f"{file.name}: is {kind}, whatever its name says; expected tab-separated text. {SAVE}.")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start : error.start + 1]
        letter = byte.decode("cp1252", "replace")
        raise DataError(
            f"{file.name}, line {line}: is not UTF-8 text: byte 0x{byte.hex()} is {letter!r} in Windows-1252 (Latin-1), as which "
            "the table seems to be saved. Save it as UTF-8 (in Excel: CSV UTF-8, then tabs; or iconv -f WINDOWS-1252 -t UTF-8)."
        ) from error


def _split(file: Path, text: str) -> list[tuple[int, list[str]]]:
    """Numbered lines that hold anything, as cells. Where the heading stands in quotes, quotes hold cells together."""
    quoted = text.lstrip().startswith('"')
    reader = csv.reader(
        io.StringIO(text.replace('\\"', '""') if quoted else text, newline=""),
        delimiter="\t",
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{file.name}: cannot be read as UTF-8 text with tabs ({error}).") from error
    return [(line, [_bare(cell) for cell in row]) for line, row in rows]


def _bare(cell: str) -> str:
    """Without the quotes that Excel puts around a cell with a comma in it."""
    inner = re.fullmatch(r'\s*"((?:[^"]|"")*)"\s*', cell)
    return inner[1].replace('""', '"') if inner else cell


def _instead(header: list[str], key: str) -> str:
    """What a heading shows of a table without its key."""
    expected = f"expected tab-separated columns, each once, {key} among them"
    if len(header) == 1:
        for mark, name in DELIMITERS.items():
            parts = [part.strip('" ') for part in header[0].split(mark) if part.strip()]
            if len(parts) > 1 and (mark != " " or key in parts):
                return f"{expected}; its columns are separated by {name}. {SAVE}.{hint(key, parts) if key not in parts else ''}"
    return f"{expected}; got {', '.join(header) or 'nothing'}.{hint(key, header)}"


def session_rows(folder: Path, columns: tuple[str, ...] = ()) -> list[Mapping[str, str]]:
    """The rows of a patient's `*_sessions.tsv`; none where it has no such table.

    Raises:
        DataError: it cannot be read.
    """
    found = sorted(file for file in folder.glob("*sessions.tsv") if file.is_file() and not file.name.startswith("."))
    return [cells for _, cells in read_table(found[0], SESSION, columns).rows] if found else []
