"""What of a patient's identity stays: new names, sidecars, age and sex."""

import hashlib
import hmac
import re
import stat
from pathlib import Path

import pytest

from client.data import demographics
from client.data.pseudonym import Pseudonyms
from client.data.sidecar import sidecar
from common.errors import ConfigError
from tests.client.data.test_modality import AGENT, FLAIR, header

IDENTIFYING = {
    "PatientName": "Musterfrau^Erika",
    "PatientID": "4711-0815",
    "PatientBirthDate": "19350704",
    "PatientAddress": "Hauptstrasse 1",
    "StudyDate": "20240301",
    "AcquisitionDateTime": "20240301101500",
    "AccessionNumber": "ACC99",
    "InstitutionName": "Klinikum",
    "StationName": "MR-0042",
    "DeviceSerialNumber": "123456",
    "OperatorsName": "Op^One",
    "ReferringPhysicianName": "Dr^House",
    "StudyInstanceUID": "1.2.3.4.5",
    "SeriesInstanceUID": "1.2.3.4.6",
    "FrameOfReferenceUID": "1.2.3.4.7",
    "StudyDescription": "Erika follow up",
    "SeriesDescription": "FLAIR Erika",
    "ProtocolName": "Erika",
    "ImageComments": "Erika",
}


def test_names_are_the_hmac_of_the_number(tmp_path: Path) -> None:
    names = Pseudonyms(tmp_path)
    key = bytes.fromhex((tmp_path / "keys" / "pseudonym.key").read_text())
    assert names.name("4711") == f"sub-{hmac.new(key, b'4711', hashlib.sha256).hexdigest()[:12]}"
    assert names.name(" 4711 ") == names.name("4711") != names.name("4712")
    assert Pseudonyms(tmp_path).name("4711") == names.name("4711")
    assert Pseudonyms(tmp_path / "other").name("4711") != names.name("4711")


def test_key_and_table_are_the_owners_alone(tmp_path: Path) -> None:
    names = Pseudonyms(tmp_path)
    name = names.name("4711")
    table = names.keep_table()
    for path, mode in ((tmp_path / "keys", 0o700), (tmp_path / "keys" / "pseudonym.key", 0o600), (table, 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    later = Pseudonyms(tmp_path)
    other = later.name("4712")
    later.keep_table()
    assert set(table.read_text().split()) == {"participant_id", "patient_id", name, "4711", other, "4712"}


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    Pseudonyms(tmp_path)
    (tmp_path / "keys" / "pseudonym.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Pseudonyms(tmp_path)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    Pseudonyms(tmp_path)
    (tmp_path / "keys" / "pseudonym.key").write_text("abc")
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        Pseudonyms(tmp_path)


def test_a_sidecar_says_how_and_nothing_of_whom_where_or_when() -> None:
    scanner = {"Manufacturer": "SIEMENS", "ManufacturerModelName": "Skyra", "MagneticFieldStrength": 3}
    kept = sidecar(header(**FLAIR, **AGENT, **IDENTIFYING, **scanner))
    assert kept == {
        "Modality": "MR",
        "EchoTime": 0.125,
        "RepetitionTime": 9.0,
        "InversionTime": 2.5,
        "MagneticFieldStrength": 3.0,
        "Manufacturer": "SIEMENS",
        "ManufacturersModelName": "Skyra",
    }


def test_a_number_in_a_model_name_is_not_kept() -> None:
    assert "ManufacturersModelName" not in sidecar(header(ManufacturerModelName="Skyra SN 123456"))
    assert "Manufacturer" not in sidecar(header(Manufacturer="Müller, Erika"))


@pytest.mark.parametrize(
    ("tags", "age"),
    [
        ({"PatientAge": "054Y"}, "54"),
        ({"PatientAge": "089Y"}, "89"),
        ({"PatientAge": "090Y"}, "89+"),
        ({"PatientAge": "018M"}, "1"),
        ({"PatientBirthDate": "19700302", "StudyDate": "20240301"}, "53"),
        ({"PatientBirthDate": "19300101", "StudyDate": "20240301"}, "89+"),
        ({"PatientBirthDate": "20300101", "StudyDate": "20240301"}, "n/a"),
        ({}, "n/a"),
    ],
)
def test_ages(tags, age) -> None:
    assert demographics.age(header(**tags)) == age


@pytest.mark.parametrize(("word", "sex"), [("F", "F"), ("M", "M"), ("O", "n/a"), ("", "n/a")])
def test_sex(word, sex) -> None:
    assert demographics.sex(header(PatientSex=word)) == sex


def test_the_name_is_a_bids_label(tmp_path: Path) -> None:
    assert re.fullmatch("sub-[0-9a-zA-Z]+", Pseudonyms(tmp_path).name("Ä/../4711"))
