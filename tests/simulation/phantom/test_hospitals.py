"""The written folders: layout, repeatability, site properties, refusals."""

import gzip
import hashlib
import json
import tomllib
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from common.cli import run_command
from common.config.run import RunConfig
from common.config.sections import DataConfig
from common.data.cases import read_site
from common.data.slices import prepare_case
from common.errors import ConfigError, DataError
from simulation.phantom import write_figure, write_hospitals
from simulation.phantom.command import add_phantom
from simulation.phantom.hospitals import nifti_bytes
from simulation.phantom.lesion import SUBTYPES
from simulation.phantom.sites import EXTERNAL, hospital, label_sequence
from tests.bids_validator import bids_issues

DESCRIPTION = "e058d7e38038e19e842dd88f98b9f6e11207d2eca3d96bf4f0afb41ddb78a072"


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _table(site: Path) -> list[dict[str, str]]:
    head, *rows = (line.split("\t") for line in (site / "participants.tsv").read_text().splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "data"
    calls: list[tuple[int, int]] = []
    write_hospitals(out, sites=2, patients=2, external=3, seed=5, workers=1, progress=lambda *call: calls.append(call))
    assert calls == [(n, 7) for n in range(1, 8)]
    return out


@pytest.mark.slow
def test_same_seed_same_bytes_whatever_the_other_sites(small: Path, tmp_path: Path) -> None:
    write_hospitals(tmp_path / "again", sites=2, patients=1, external=2, seed=5, workers=2)
    again, first = _hashes(tmp_path / "again"), _hashes(small)
    images = [name for name in again if name.endswith(".nii.gz")]
    assert images
    assert {name: again[name] for name in images} == {name: first[name] for name in images}


def test_another_seed_gives_other_bytes(small: Path, tmp_path: Path) -> None:
    write_hospitals(tmp_path / "other", sites=2, patients=1, external=0, seed=6, workers=1)
    other, first = _hashes(tmp_path / "other"), _hashes(small)
    common = [name for name in other if name.endswith("T1w.nii.gz") and name in first]
    assert common
    assert all(other[name] != first[name] for name in common)
    assert not (tmp_path / "other" / "external").exists()


def test_nifti_has_no_time_stamp() -> None:
    content = nifti_bytes(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    assert content[4:8] == bytes(4)  # gzip MTIME (RFC 1952)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    assert np.array_equal(np.asarray(image.dataobj), np.arange(8).reshape(2, 2, 2))


def test_layout_and_grid(small: Path) -> None:
    assert sorted(p.name for p in small.iterdir()) == ["external", "hospital-a", "hospital-b"]
    for site in small.iterdir():
        settings = tomllib.loads((site / "site.toml").read_text())
        assert settings == {
            "name": site.name,
            **({"labels": {"column": "none"}} if site.name == "hospital-b" else {}),
            "policy": {
                "share_counts": True,
                "share_metrics": True,
                "share_calibration": True,
                "share_pictures": True,
                "min_patients": 1,
                "survey": ["*"],
            },
        }
        assert (site / "dataset_description.json").is_file()
        for row in _table(site):
            files = sorted((site / row["participant_id"] / "anat").iterdir())
            files += sorted((site / "derivatives" / "tumour" / row["participant_id"] / "anat").iterdir())
            images = [nibabel.Nifti1Image.from_filename(path) for path in files]
            masks = [np.asarray(i.dataobj) for i, p in zip(images, files, strict=True) if p.name.endswith("mask.nii.gz")]
            assert len(masks) == 1
            assert files[-1].name.endswith("_desc-tumour_mask.nii.gz")
            assert len(files) >= 2
            assert masks[0].sum() > 50
            assert {nibabel.aff2axcodes(image.affine) for image in images} == {("R", "A", "S")}
            assert len({image.shape for image in images}) == 1
            assert len({image.affine.tobytes() for image in images}) == 1
            assert all(image.get_data_dtype() == np.int16 for image in images)
            assert images[0].header.get_zooms()[2] >= 4.0


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "flat"
    write_hospitals(out, sites=2, patients=2, external=0, seed=5, layout="flat", workers=1)
    return out


def test_both_layouts_give_the_same_slices(small: Path, flat: Path) -> None:
    """What a run trains on does not depend on where a mask lies, so that figures of earlier phantoms stay comparable."""
    data = DataConfig(size=32, slices=3)
    for site in ("hospital-a", "hospital-b"):
        cases = [read_site(folder / site, RunConfig(data=data), simulated=True).cases for folder in (small, flat)]
        assert [case.label for case in cases[0]] == [case.label for case in cases[1]]
        for one, other in zip(*cases, strict=True):
            assert one.mask
            assert other.mask
            assert (one.mask.parts[-5], other.mask.parent) == ("derivatives", flat / site / other.id / "anat")
            (images, present, _), (again, here, _) = prepare_case(one, data), prepare_case(other, data)
            assert (images.tobytes(), present.tolist()) == (again.tobytes(), here.tolist())


def test_the_flat_layout_is_that_of_earlier_phantoms(small: Path, flat: Path) -> None:
    site, images = flat / "hospital-a", _hashes(small)
    assert sorted(p.name for p in site.iterdir() if p.is_file()) == [
        *("FLAIR.json", "T1w.json", "T2w.json", "dataset_description.json", "participants.tsv", "site.toml"),
    ]
    assert hashlib.sha256((site / "dataset_description.json").read_bytes()).hexdigest() == DESCRIPTION  # as 412edbd wrote it
    for name, digest in _hashes(flat).items():
        moved = name.replace("/sub-", "/derivatives/tumour/sub-", 1) if "_mask" in name else name
        assert name.endswith(("dataset_description.json", "b/T2w.json")) or images[moved] == digest


def test_a_site_describes_itself_as_bids_wants(small: Path) -> None:
    site = small / "hospital-a"
    assert json.loads((site / "participants.json").read_text()).keys() == {"age", "sex", "subtype"}
    levels = json.loads((site / "participants.json").read_text())["subtype"]["Levels"]
    assert set(levels) == set(SUBTYPES)
    assert (site / ".bidsignore").read_text() == "site.toml\n"
    described = json.loads((site / "derivatives" / "tumour" / "dataset_description.json").read_text())
    assert (described["DatasetType"], described["GeneratedBy"]) == ("derivative", [{"Name": "fedmri-sim phantom"}])
    assert not (small / "hospital-b" / "T2w.json").exists()  # nobody there has one
    with pytest.raises(ConfigError, match="--layout one of bids, flat, got brats"):
        write_hospitals(small.parent / "x", sites=2, patients=1, external=0, seed=5, layout="brats")


def test_the_bids_validator_takes_what_is_written(small: Path) -> None:
    for site in small.iterdir():
        assert [issue for issue in bids_issues(site) if issue["severity"] == "error"] == []


def test_last_training_site_has_no_label(small: Path) -> None:
    assert {row["subtype"] for row in _table(small / "hospital-b")} == {"n/a"}
    assert {row["subtype"] for row in _table(small / "hospital-a")} <= set(SUBTYPES)
    assert {row["subtype"] for row in _table(small / "external")} == set(SUBTYPES)


def test_sites_differ_as_promised() -> None:
    sites = [hospital(7, number, labelled=True) for number in range(8)]
    assert len({site.scanner for site in sites}) == 8
    counts = [Counter(label_sequence(site, 24)) for site in sites[:3]]
    assert len({count.most_common(1)[0][0] for count in counts}) == 3
    assert any(len(count) < 3 for count in counts)
    assert set().union(*counts) == set(SUBTYPES)
    assert sites[1].missing["t2"] == 1.0
    external = Counter(label_sequence(hospital(7, EXTERNAL, labelled=True), 40))
    assert min(external.values()) >= 10


def test_every_patient_keeps_a_modality() -> None:
    site = hospital(7, 1, labelled=True)
    generator = np.random.default_rng(0)
    bare = type(site)(1, "x", site.scanner, site.mix, dict.fromkeys(("t1", "t1c", "flair"), 0.95) | {"t2": 1.0}, True)
    drawn = [bare.draw_modalities(generator) for _ in range(200)]
    assert all(drawn)
    assert "t2" not in set().union(*drawn)


def test_label_sequence_is_a_prefix_of_a_longer_one() -> None:
    site = hospital(3, 2, labelled=True)
    assert label_sequence(site, 30)[:11] == label_sequence(site, 11)


def test_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        write_hospitals(tmp_path, sites=2, patients=1, external=0, seed=1, workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("wrong", [{"sites": 1}, {"patients": 0}, {"external": -1}, {"seed": -1}])
def test_wrong_numbers_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        write_hospitals(tmp_path / "x", **({"sites": 2, "patients": 1, "external": 0, "seed": 1} | wrong))


def test_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_hospitals(tmp_path / "x", sites=2, patients=1, external=0, seed=1, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_figure_is_a_small_png(small: Path, tmp_path: Path) -> None:
    write_figure(tmp_path / "f.png", small)
    content = (tmp_path / "f.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert 50_000 < len(content) <= 400_000
    with pytest.raises(DataError, match="found none"):
        write_figure(tmp_path / "g.png", tmp_path)


def test_command_writes_replaces_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    add_phantom(parser.add_subparsers(required=True))
    out = tmp_path / "out"
    words = ["phantom", str(out), "--sites", "2", "--patients", "1", "--external", "0"]
    out.mkdir()
    (out / "old").write_text("old")
    assert run_command(parser, words) == 2
    assert "--force" in capsys.readouterr().err
    assert run_command(parser, [*words, "--force", "--figure", str(tmp_path / "f.png")]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["hospital-a", "hospital-b"]
    assert (tmp_path / "f.png").is_file()


@pytest.mark.slow
def test_what_is_written_on_request_changes_nothing_else(small: Path, tmp_path: Path) -> None:
    write_hospitals(tmp_path / "more", sites=2, patients=2, external=3, seed=5, workers=1, also=("adc",), grade=True)
    more, first = _hashes(tmp_path / "more"), _hashes(small)
    added = sorted(name for name in more if name not in first)
    assert {Path(name).name.split("_")[-1] for name in added} == {"ADC.nii.gz", "ADC.json"}
    assert {Path(name).parent.name for name in added if name.endswith(".gz")} == {"dwi"}
    assert {name for name in first if more[name] != first[name]} == {
        f"{site}/participants.{end}" for site in ("external", "hospital-a", "hospital-b") for end in ("tsv", "json")
    }
    for site in ("external", "hospital-a", "hospital-b"):
        rows = _table(tmp_path / "more" / site)
        assert [{k: v for k, v in row.items() if k != "grade"} for row in rows] == _table(small / site)
        assert {row["grade"] for row in rows} <= ({"n/a"} if site == "hospital-b" else {"2", "3", "4"})
        assert all(row["grade"] == "4" for row in rows if row["subtype"] == "idh-wildtype")
    write_figure(tmp_path / "f.png", tmp_path / "more")
    with pytest.raises(ConfigError, match="expected --also some of adc, got pet"):
        write_hospitals(tmp_path / "x", sites=2, patients=1, external=0, seed=5, also=("pet",))
