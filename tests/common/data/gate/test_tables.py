"""Tables of every make: read back, or refused by what they are; rows matched to folders, and of several rows the right one."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.data.gate.participants import match_rows, one_row
from common.data.gate.tables import Table, read_table
from common.errors import DataError

CELL = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\ufeff"), max_size=8).filter(
    lambda text: len(text) < 2 or not (text.startswith('"') and text.endswith('"'))
)
KEY = CELL.filter(bool)
ROWS = [("participant_id", "age", "subtype"), ("sub-1", "39", "a"), ("sub-2", "43", "b, of a kind"), ("sub-3", "n/a", "a")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.dictionaries(KEY, st.tuples(CELL, st.one_of(st.none(), st.integers(0, 120)), CELL)),
    ends=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_a_table_is_read_back(tmp_path: Path, rows: dict[str, tuple[str, int | None, str]], ends: str, encoding: str) -> None:
    lines = ["age\tparticipant_id\tsubtype\tother"]
    lines += [f"{'n/a' if age is None else age}\t{key}\t{label}\t{other}" for key, (label, age, other) in rows.items()]
    file = tmp_path / "participants.tsv"
    file.write_bytes((ends.join(lines) + ends).encode(encoding))
    expected = [
        {"participant_id": key, "age": "n/a" if age is None else str(age), "subtype": label, "other": other}
        for key, (label, age, other) in rows.items()
    ]
    assert [{"subtype": "", "other": "", **cells} for _, cells in read_table(file).rows] == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(content=st.one_of(st.binary(max_size=60), st.text("participant_id\t\nab\r\"' ", max_size=60).map(str.encode)))
def test_any_bytes_give_a_table_or_a_data_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "participants.tsv"
    for start in (b"", b"participant_id\tsubtype\n", b'"participant_id"\t"subtype"\n'):
        file.write_bytes(start + content)
        with contextlib.suppress(DataError):
            read_table(file)


def quoted(cell: str) -> str:
    return cell if cell.isdecimal() else f'"{cell}"'


FORMS = {
    "R": lambda: "".join("\t".join(map(quoted, row)) + "\n" for row in ROWS),
    "R with row numbers": lambda: "".join(
        "\t".join([*([f'"{i}"'] if i else []), *map(quoted, row)]) + "\n" for i, row in enumerate(ROWS)
    ),
    "R without quotes": lambda: "".join("\t".join([*([str(i)] if i else []), *row]) + "\n" for i, row in enumerate(ROWS)),
    "pandas with its index": lambda: "".join("\t".join([str(i - 1) if i else "", *row]) + "\n" for i, row in enumerate(ROWS)),
    "Excel": lambda: "".join("\t".join(f'"{c}"' if "," in c else c for c in row) + "\r\n" for row in ROWS),
    "an old Mac": lambda: "\ufeff" + "".join(" \t ".join(row) + " \t\r" for row in ROWS),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_r_excel_and_pandas_write_is_the_same_table(tmp_path: Path, form: str) -> None:
    file = tmp_path / "participants.tsv"
    file.write_bytes(FORMS[form]().encode())
    found = [tuple(cells[name] for name in ROWS[0]) for _, cells in read_table(file).rows]
    assert found == ROWS[1:]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"participant_id\tage\nx\t1\t2\n", "line 2: expected 2 cells between tabs, got 3"),
        (b"participant_id,age\nx,1\n", "separated by commas. Save it as tab-separated text"),
        (b'"participant_id";"age"\nx;1\n', "separated by semicolons"),
        (b"PK\x03\x04\x14\x00rest", "is an Excel workbook"),
        (b"\xd0\xcf\x11\xe0rest", "is an old Excel workbook"),
        ("participant_id\tsubtype\nx\tÄ\n".encode("latin-1"), "Save it as UTF-8"),
        (b"age\tage\tparticipant_id\n", "each once"),
        (b"", "participant_id among them; got nothing"),
        (b"id\tage\n", "participant_id among them; got id, age"),
    ],
)
def test_a_wrong_table_is_refused_by_what_it_is(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "participants.tsv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=expected):
        read_table(file)


def matched(names: list[str], folders: list[str]):
    return match_rows(
        Table("t", ("participant_id",), tuple((i, {"participant_id": name}) for i, name in enumerate(names))), folders
    )


@pytest.mark.parametrize(
    ("names", "folders", "expected"),
    [
        (["sub-1", "sub-2"], ["sub-1", "sub-2"], {"sub-1": "sub-1", "sub-2": "sub-2"}),
        (["0001", "0002"], ["sub-0001", "sub-0002"], {"sub-0001": "0001", "sub-0002": "0002"}),
        (["1", "2", "12"], ["sub-001", "sub-002", "sub-012"], {"sub-001": "1", "sub-002": "2", "sub-012": "12"}),
        (["1.0", "2.0"], ["sub-01", "sub-02"], {"sub-01": "1.0", "sub-02": "2.0"}),
        (["P1", "p02"], ["sub-P01", "sub-P02"], {"sub-P01": "P1", "sub-P02": "p02"}),
        (["TCGA-DU-7294"], ["sub-TCGADU7294"], {"sub-TCGADU7294": "TCGA-DU-7294"}),
        (["1", "01"], ["sub-1", "sub-01"], {"sub-1": "1", "sub-01": "01"}),
        (["1"], ["sub-01", "sub-001"], {}),  # two folders that it could be
        (["01", "001"], ["sub-1"], {}),  # two rows that could be theirs
        (["1-01"], ["sub-11", "sub-101"], {"sub-101": "1-01"}),
        (["1"], ["sub-2"], {}),
    ],
)
def test_rows_and_folders(names: list[str], folders: list[str], expected: dict[str, str]) -> None:
    found = matched(names, folders)
    assert {folder: rows[0]["participant_id"] for folder, rows in found.rows.items()} == expected
    assert sorted(found.lost) == sorted(set(names) - set(expected.values()))
    assert bool(found.findings) == any(folder != name for folder, name in expected.items())
    for one in found.findings:  # both spellings
        assert any(repr(name) in one.found and repr(folder) in one.found for folder, name in expected.items())


def test_the_pair_that_is_shown_is_the_first_of_many() -> None:
    """And not one that changes with every start of Python, as the order of a set does."""
    numbers = [f"{number:04d}" for number in range(1, 41)]
    [one] = matched(numbers[::-1], [f"sub-{number}" for number in numbers]).findings
    assert "'0001' in the table is the folder 'sub-0001'" in one.found


@pytest.mark.parametrize(
    ("rows", "session", "of_session", "label", "differing"),
    [
        ([{"label": "a"}, {"label": "a", "scanner": "x"}], "", {}, "a", 0),
        ([{"label": "a"}, {"label": "n/a"}], "", {}, "a", 0),
        ([{"label": "n/a"}, {"label": "b"}], "", {}, "b", 0),
        ([{"label": "a"}, {"label": "b"}], "", {}, "a", 1),
        ([{"label": "a", "session_id": "ses-01"}, {"label": "b", "session_id": "2"}], "ses-02", {}, "b", 0),
        ([{"label": "a", "session_id": "ses-1"}, {"label": "b", "session_id": "ses-2"}], "ses-3", {}, "a", 1),
        ([{"label": "a"}], "ses-2", {"label": "b", "session_id": "ses-2"}, "b", 0),
        ([{"label": "a"}], "ses-2", {"label": "n/a"}, "a", 0),
        ([], "", {}, "", 0),
    ],
)
def test_several_rows_of_a_patient(rows, session: str, of_session, label: str, differing: int) -> None:
    cells, found, _ = one_row(rows, session, of_session, ["label"])
    assert (cells.get("label", ""), len(found)) == (label, differing)
