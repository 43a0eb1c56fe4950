"""What `fedmri-site import` refuses before it reads a header, and by which key its names were made."""

from pathlib import Path

import pytest

from client.cli.main import main
from client.data.plan import COLUMNS, planned_patients
from client.data.pseudonym import Pseudonyms
from client.data.tables import read_table
from common.errors import ConfigError, DataError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["{tmp}/nope"], "nope: no such file or folder"),
        (["{tmp}/nope", "--preset", "brats2021", "--out", "{tmp}/site"], "nope: no such file or folder"),
        (["{tmp}/source", "--plan", "{tmp}/nope/plan.tsv"], "there is no folder"),
        (["{tmp}/source", "--plan", "{tmp}/source"], "is a folder"),
        (["{tmp}/source", "--preset", "brats2021", "--out", "{tmp}/source"], "is the source, or lies in it"),
        (["{tmp}/source", "--preset", "brats2021", "--out", "{tmp}/source/site"], "is the source, or lies in it"),
    ],
)
def test_refused_at_once_and_nothing_is_made(source, tmp_path, capsys, options, told) -> None:
    assert main(["import", *(option.format(tmp=tmp_path) for option in options)]) == 2
    assert told in capsys.readouterr().err.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert not any(source.iterdir())


def plan(path: Path, patient: str, encoding: str = "utf-8") -> Path:
    cells = {"use": "yes", "patient": patient, "study": "1", "modality": "t1", "series": "s"}
    lines = ["\t".join(COLUMNS), "\t".join(cells.get(column, "") for column in COLUMNS)]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def test_a_plan_of_another_key_is_refused_before_the_source_is_read(source, tmp_path, capsys) -> None:
    names = Pseudonyms(tmp_path)
    names.name("P-1")
    names.keep_table()
    file = plan(tmp_path / "plan.tsv", "sub-0123456789ab")
    assert main(["import", str(source), "--plan", str(file), "--go", "--out", str(tmp_path / "site")]) == 2
    assert "named by another key" in capsys.readouterr().err.replace("\n", " ")


def test_a_home_without_the_key_makes_none_for_a_plan(source, tmp_path, capsys) -> None:
    file = plan(tmp_path / "plan.tsv", "sub-0123456789ab")
    assert main(["import", str(source), "--plan", str(file), "--go", "--out", str(tmp_path / "site")]) == 2
    assert "Restore the file" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "keys").exists()


def test_a_key_that_did_not_make_the_names(tmp_path) -> None:
    names = Pseudonyms(tmp_path)
    names.require_known({names.name("P-1")} - {names.name("P-1")})
    names.keep_table()
    Pseudonyms(tmp_path).require_known({Pseudonyms(tmp_path).name("P-1")})
    key = tmp_path / "keys" / "pseudonym.key"
    key.write_text("ab" * 32 + "\n")
    with pytest.raises(ConfigError, match="is another key"):
        Pseudonyms(tmp_path)
    key.unlink()
    with pytest.raises(ConfigError, match="Restore the file"):
        Pseudonyms(tmp_path)
    assert not key.exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_plans_and_tables_in_what_spreadsheets_save(tmp_path, encoding) -> None:
    assert planned_patients(plan(tmp_path / "plan.tsv", "sub-a", encoding)) == {"sub-a"}
    (tmp_path / "labels.csv").write_bytes("patient_id;subtype\nP-1;höher\n".encode(encoding))
    assert read_table(tmp_path / "labels.csv", "patient_id")["P-1"]["subtype"] == "höher"


def test_a_table_in_latin_1_is_named_with_its_line(tmp_path) -> None:
    (tmp_path / "labels.csv").write_bytes("patient_id;subtype\nP-1;höher\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels\.csv, line 2: .* 0xf6 is 'ö'"):
        read_table(tmp_path / "labels.csv", "patient_id")
